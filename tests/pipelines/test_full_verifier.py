"""The full verifier as an asset check: there where it is asked for, and only there."""

import dagster as dg
import pytest

from tests.support.embedded import embedded, mine
from windrow.assets.window.full_verifier import FULL_VERIFIER


@pytest.mark.parametrize("asked", ["yes", "no"])
def test_it_reports_only_where_it_is_asked_for(
    tmp_path_factory: pytest.TempPathFactory, asked: str
) -> None:
    definitions = embedded(tmp_path_factory.mktemp(asked), WINDROW_VERIFY_SUBMISSION=asked)
    with dg.DagsterInstance.ephemeral() as instance:
        mined = mine(definitions, instance, groups=1)
    assert mined.success
    checks = {check.check_name: check for check in mined.get_asset_check_evaluations()}
    assert (FULL_VERIFIER in checks) == (asked == "yes")
    if asked == "yes":
        found = {name: value.value for name, value in checks[FULL_VERIFIER].metadata.items()}
        assert checks[FULL_VERIFIER].passed == found["windrow_accepts"]
        assert found["not_checked"] == []
        assert found["results"] > 16 * 10
