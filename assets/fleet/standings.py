"""Where every node of the fleet stands, read from the lake."""

from collections import defaultdict
from collections.abc import Collection

from windrow.engine.fleet.stages import Machine, Standing, State, standing
from windrow.resources.warehouse.lake import Lake

STATES = """
SELECT node, stage, state, observed_at AS at, reason, detail FROM node_states
WHERE list_contains(?, node) AND observed_at > ?
"""
SEEN = """
SELECT f.node, f.observed_at AS at, f.driver,
       coalesce(list_sort(g.uuids), []) AS uuids
FROM node_facts f
LEFT JOIN (SELECT node, observed_at, list(uuid) AS uuids FROM node_gpus GROUP BY ALL) g
USING (node, observed_at)
WHERE list_contains(?, f.node) AND f.observed_at > ?
ORDER BY f.observed_at
"""
MISHAPS = """
SELECT max(recorded_at) AS at FROM faults
WHERE rollout_group IS NULL AND stage IN ('window_stream', 'generation', 'proof')
"""
DECLARED = """
SELECT node, arg_max(declared, observed_at) AS declared FROM nodes
WHERE list_contains(?, node) GROUP BY node
"""
HISTORY_SECONDS = 7 * 24 * 3600.0


def standings(lake: Lake, names: Collection[str], now: float) -> dict[str, Standing]:
    """Where these nodes stand, by name."""
    rows: dict[str, list[State]] = defaultdict(list)
    for row in lake.query(STATES, [sorted(names), now - HISTORY_SECONDS]).to_pylist():
        rows[row.pop("node")].append(State(**row))
    return {name: standing(rows[name], now) for name in sorted(names)}


def machines(lake: Lake, names: Collection[str], now: float) -> dict[str, list[Machine]]:
    """What was seen of these nodes, oldest first, by name."""
    found: dict[str, list[Machine]] = defaultdict(list)
    for row in lake.query(SEEN, [sorted(names), now - HISTORY_SECONDS]).to_pylist():
        uuids = tuple(sorted(row["uuids"]))
        found[row["node"]].append(Machine(row["at"], row["driver"], uuids))
    return found


def last_mishap(lake: Lake) -> float:
    """When a scoring window last failed on this machine, unix seconds; 0 for never."""
    (row,) = lake.query(MISHAPS).to_pylist()
    return row["at"] or 0.0


def declarations(lake: Lake, names: Collection[str]) -> dict[str, str]:
    """How these nodes were declared when they were last looked at, JSON by name."""
    rows = lake.query(DECLARED, [sorted(names)]).to_pylist()
    return {row["node"]: row["declared"] for row in rows}
