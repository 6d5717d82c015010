"""Meter event summaries: reading back what a meter counted."""

from collections.abc import Iterator

from stripe.params.billing import MeterEventSummaryListParams

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.metering import aggregate
from quill_stripesim.listing import page
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource

_WINDOW_SECONDS = {"hour": 3_600, "day": 86_400}
_MINUTE = 60
MAX_WINDOWS = 10_000


def list_(call: Call) -> Resource:
    """Lists a customer's totals over `[start_time, end_time)`: one, or one per UTC hour or day that has any.

    Raises:
        StripeError: 400 for times not on a whole minute (or hour, or day), an empty span or too many windows.
    """
    meter = call.world.require("billing.meter", call.ids["id"])
    customer = call.world.require("customer", call.params["customer"], param="customer")
    summaries = [
        {
            "id": f"mtrusg_{meter['id'][4:]}_{start}_{end}",
            "object": "billing.meter_event_summary",
            "aggregated_value": aggregate(call.world, meter, customer["id"], start=start, end=end),
            "end_time": end,
            "livemode": False,
            "meter": meter["id"],
            "start_time": start,
        }
        for start, end in _windows(call)
    ]
    if "value_grouping_window" in call.params:
        summaries = [each for each in summaries if each["aggregated_value"] != 0]
    return page(summaries, call.params, url=call.path)


def _windows(call: Call) -> Iterator[tuple[int, int]]:
    start, end = call.params["start_time"], call.params["end_time"]
    window = call.params.get("value_grouping_window")
    step = _MINUTE if window is None else _WINDOW_SECONDS[window]
    for name, instant in (("start_time", start), ("end_time", end)):
        if instant % step:
            raise StripeError(f"{name} must be aligned with the {window or 'minute'} boundaries.", param=name)
    if end <= start:
        raise StripeError("end_time must be after start_time.", param="end_time")
    if window is None:
        yield start, end
        return
    if (end - start) // step > MAX_WINDOWS:
        raise StripeError(f"At most {MAX_WINDOWS} windows can be listed at once.", param="end_time")
    for at in range(end - step, start - step, -step):
        yield at, at + step


ROUTES = [
    Route(
        "GET",
        "/v1/billing/meters/{id}/event_summaries",
        list_,
        MeterEventSummaryListParams,
        LISTING | honours("customer", "start_time", "end_time", "value_grouping_window"),
    ),
]
