"""From what usage snapshots say to the `MeteredUsage` of one meter, alike for invoice, page, previews and limiter."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from quill_pricing.billed_quantity import MeteredUsage

NO_CUTS: Mapping[datetime, Mapping[str, int]] = {}


def metered_usage(
    usage_key: str,
    *,
    totals: Mapping[str, int],
    cuts: Mapping[datetime, Mapping[str, int]] = NO_CUTS,
    earlier: Iterable[Mapping[str, int]] = (),
    aggregation: str = "sum",
    carried: bool = False,
) -> MeteredUsage:
    """What is known of one meter in a billing period.

    A meter that the period does not name was not used. Only a gauge that is carried keeps the value of the newest
    earlier period that names it, until its first event of this period.

    Args:
        usage_key: the meter.
        totals: units by meter in the period.
        cuts: units by meter before each cut of the period.
        earlier: units by meter of the periods before, newest first.
        aggregation: ``last`` is a gauge, everything else a flow.
        carried: whether the gauge's value goes on into a period in which no event came.
    """
    is_last_value = aggregation == "last"
    at_first = 0
    if is_last_value and carried:
        at_first = next((quantities[usage_key] for quantities in earlier if usage_key in quantities), 0)
    return MeteredUsage(
        total=totals.get(usage_key, at_first),
        before={cut: quantities.get(usage_key, at_first) for cut, quantities in cuts.items()},
        is_last_value=is_last_value,
    )
