"""What operators must know of the payment rail."""

from dataclasses import asdict
from datetime import datetime

from quill_runtime.database import Transaction
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_invoicing.domain.operator_alert import OperatorAlert, RailNotice, alert_id_of
from quill_invoicing.store.tables import operator_alerts


class AlertRows:
    """The alert part of a transaction on Postgres."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection

    async def raise_alert(self, notice: RailNotice, *, now: datetime) -> bool:
        alert_id = alert_id_of(notice)
        known = await self.alert(alert_id, locked=True)
        fresh = insert(operator_alerts).values(
            alert_id=alert_id,
            kind=notice.kind,
            subject=notice.subject,
            detail=notice.detail,
            first_seen_at=now,
            last_seen_at=now,
            count=1,
        )
        await self._connection.execute(
            fresh.on_conflict_do_update(
                index_elements=["alert_id"],
                set_={
                    "detail": notice.detail,
                    "last_seen_at": now,
                    "count": operator_alerts.c.count + 1,
                    "resolved_at": None,
                    "resolved_by": None,
                    "reason": None,
                },
            )
        )
        return known is None or known.resolved_at is not None

    async def alerts(self, *, include_resolved: bool, limit: int) -> list[OperatorAlert]:
        query = select(operator_alerts).order_by(operator_alerts.c.last_seen_at.desc(), operator_alerts.c.alert_id)
        if not include_resolved:
            query = query.where(operator_alerts.c.resolved_at.is_(None))
        return [OperatorAlert(**row._asdict()) for row in await self._connection.execute(query.limit(limit))]

    async def alert(self, alert_id: str, *, locked: bool = False) -> OperatorAlert | None:
        query = select(operator_alerts).where(operator_alerts.c.alert_id == alert_id)
        row = (await self._connection.execute(query.with_for_update() if locked else query)).one_or_none()
        return None if row is None else OperatorAlert(**row._asdict())

    async def save_alert(self, alert: OperatorAlert) -> None:
        values = asdict(alert)
        del values["alert_id"]
        await self._connection.execute(
            update(operator_alerts).where(operator_alerts.c.alert_id == alert.alert_id).values(**values)
        )

    async def count_open_alerts(self) -> dict[str, int]:
        rows = await self._connection.execute(
            select(operator_alerts.c.kind, func.count().label("open"))
            .where(operator_alerts.c.resolved_at.is_(None))
            .group_by(operator_alerts.c.kind)
        )
        return {row.kind: row.open for row in rows}
