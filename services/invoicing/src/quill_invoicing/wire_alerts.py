"""What operators must know of the payment rail, as the API shows it."""

from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel

from quill_invoicing.domain.operator_alert import OperatorAlert


class AlertView(BaseModel):
    """One alert; open while ``resolved_at`` is null."""

    alert_id: str
    kind: str
    subject: str
    detail: str
    first_seen_at: datetime
    last_seen_at: datetime
    count: int
    resolved_at: datetime | None
    resolved_by: str | None
    reason: str | None


class AlertList(BaseModel):
    """Alerts, the newest seen first."""

    results: list[AlertView]


def to_view_alert(alert: OperatorAlert) -> AlertView:
    """An alert for the API."""
    return AlertView(**asdict(alert))
