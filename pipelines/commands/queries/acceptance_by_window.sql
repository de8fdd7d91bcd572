-- How many files and rollouts of each window a validator accepted.
-- window_start: first block of the window
-- validator: hotkey that validated
-- files: miners with a file in the bucket, late or not
-- files_checked: files whose rollouts were checked
-- files_accepted: of those, files the network accepts
-- files_sound: of those, files that no check of Windrow fails either
-- rollouts_checked: rollouts the network would have looked at
-- rollouts_valid: rollouts that passed
-- valid_share: rollouts_valid over rollouts_checked
-- unique_share: distinct completions over rollouts_valid
SELECT
    window_start,
    validator,
    count(*) FILTER (state <> 'missing') AS files,
    count(*) FILTER (state = 'checked') AS files_checked,
    count(*) FILTER (state = 'checked' AND had_failure = 0) AS files_accepted,
    count(*) FILTER (state = 'checked' AND had_failure = 0 AND windrow_failures = 0) AS files_sound,
    coalesce(sum(checked), 0)::BIGINT AS rollouts_checked,
    coalesce(sum(valid), 0)::BIGINT AS rollouts_valid,
    rollouts_valid / nullif(rollouts_checked, 0) AS valid_share,
    sum("unique") / nullif(rollouts_valid, 0) AS unique_share
FROM validations
GROUP BY window_start, validator
ORDER BY window_start DESC, validator
