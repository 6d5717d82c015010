"""What operators must know of the payment rail, in memory."""

from collections import Counter
from dataclasses import replace
from datetime import datetime

from quill_invoicing.domain.operator_alert import OperatorAlert, RailNotice, alert_id_of


class MemoryAlertRows:
    """The alert part of a transaction in memory; ``_alerts`` is the copy it changes."""

    _alerts: dict[str, OperatorAlert]

    async def raise_alert(self, notice: RailNotice, *, now: datetime) -> bool:
        alert_id = alert_id_of(notice)
        known = self._alerts.get(alert_id)
        fresh = OperatorAlert(alert_id, notice.kind, notice.subject, notice.detail, now, now, 1)
        if known is not None:
            fresh = replace(fresh, first_seen_at=known.first_seen_at, count=known.count + 1)
        self._alerts[alert_id] = fresh
        return known is None or known.resolved_at is not None

    async def alerts(self, *, include_resolved: bool, limit: int) -> list[OperatorAlert]:
        found = [each for each in self._alerts.values() if include_resolved or each.resolved_at is None]
        return sorted(found, key=lambda each: (-each.last_seen_at.timestamp(), each.alert_id))[:limit]

    async def alert(self, alert_id: str, *, locked: bool = False) -> OperatorAlert | None:  # noqa: ARG002 - one at a time
        return self._alerts.get(alert_id)

    async def save_alert(self, alert: OperatorAlert) -> None:
        self._alerts[alert.alert_id] = alert

    async def count_open_alerts(self) -> dict[str, int]:
        return dict(Counter(each.kind for each in self._alerts.values() if each.resolved_at is None))
