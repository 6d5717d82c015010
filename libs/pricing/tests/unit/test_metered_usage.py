"""What a meter used in a period, from the numbers of usage snapshots."""

from datetime import UTC, datetime

import pytest
from quill_pricing.metered_usage import metered_usage

CUT = datetime(2026, 10, 15, tzinfo=UTC)
SEPTEMBER, AUGUST = {"storage": 9}, {"storage": 4, "other": 7}


@pytest.mark.parametrize(
    ("usage_key", "aggregation", "carried", "totals", "at_cut", "total", "before"),
    [
        ("events", "sum", False, {"events": 5}, {"events": 3}, 5, 3),
        ("events", "sum", False, {}, {}, 0, 0),
        ("events", "sum", False, {"events": 5}, {}, 5, 0),
        ("storage", "last", False, {}, {}, 0, 0),
        ("storage", "last", True, {}, {}, 9, 9),
        ("storage", "last", True, {"storage": 2}, {}, 2, 9),
        ("storage", "last", True, {"storage": 0}, {"storage": 3}, 0, 3),
        ("other", "last", True, {}, {}, 7, 7),
        ("never", "last", True, {}, {}, 0, 0),
        ("storage", "sum", True, {}, {}, 0, 0),
    ],
)
def test_a_meter_nobody_names_used_nothing_unless_it_is_carried(  # noqa: PLR0917 - a table
    usage_key: str,
    aggregation: str,
    carried: bool,
    totals: dict[str, int],
    at_cut: dict[str, int],
    total: int,
    before: int,
) -> None:
    """K14"""
    usage = metered_usage(
        usage_key,
        totals=totals,
        cuts={CUT: at_cut},
        earlier=[SEPTEMBER, AUGUST],
        aggregation=aggregation,
        carried=carried,
    )
    assert (usage.total, usage.before[CUT], usage.is_last_value) == (total, before, aggregation == "last")
