"""Something an operator must know about the payment rail; it stays open until a named person resolves it (L20)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

AlertKind = Literal[
    "price_archived",
    "product_archived",
    "meter_archived",
    "price_refused",
    "too_many_items",
    "usage_refused",
    "usage_uncounted",
    "usage_too_old",
    "email_refused",
    "other_api_version",
    "webhook_given_up",
    "draft_missing",
    "amount_differs",
]
"""``price_archived``, ``product_archived``, ``meter_archived``: a person archived it at the rail; customers who have it
keep it, for others we charge our own lines. ``price_refused``: the rail takes no such price. ``too_many_items``: more
products than a subscription holds. ``usage_refused``, ``usage_uncounted``, ``usage_too_old``: the rail's meter did not
take a quantity, so we charged our own lines. ``email_refused``: the customer has no e-mail address at the rail.
``other_api_version``: webhooks come in another form than the one we pin. ``webhook_given_up``: acting on it failed each
time. ``draft_missing``: the rail made no invoice for a period, so we made one.
``amount_differs``: its invoice is above ours, and was not collected."""


@dataclass(frozen=True, slots=True)
class RailNotice:
    """What a call at the rail found out. ``subject`` names the object, so that equal notices are one alert."""

    kind: AlertKind
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class OperatorAlert:
    """Equal notices together: when first and last, how often, and who resolved it."""

    alert_id: str
    kind: str
    subject: str
    detail: str
    first_seen_at: datetime
    last_seen_at: datetime
    count: int
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    reason: str | None = None


class NoSuchAlert(LookupError):
    """No alert has this id."""


def alert_id_of(notice: RailNotice) -> str:
    """The same for equal notices."""
    return f"{notice.kind}:{notice.subject}"[:500]
