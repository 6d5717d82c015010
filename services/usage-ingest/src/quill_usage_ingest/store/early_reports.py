"""Keeping a license's report until its organization is known: through the log of daily reports, within bounds.

From the log it is parked as ``unknown_organization`` like every other report, and enters by itself when the first
customer snapshot arrives (L4).
"""

import hashlib
from datetime import datetime
from typing import Final

from quill_contracts.intakes import DailyReport
from quill_contracts.topics import DAILY_REPORTS
from quill_runtime import inbox
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import Outgoing

REPORTS_MAX: Final = 40
"""Per license of an instance: more than a month of days, and what a stranger may make us keep."""
REGION_REPORTS_MAX: Final = 10_000
"""Per license of a region, which reports for all its organizations."""


class TooManyEarlyReports(Exception):
    """The license has as many reports waiting as it may have."""


async def keep_early_report(
    transaction: Transaction,
    report: DailyReport,
    *,
    organization_id: str,
    is_of_region: bool,
    outbox: Outbox,
    now: datetime,
) -> None:
    """Keep a report once; the same bytes again are kept again only if the day has ended since.

    Raises:
        TooManyEarlyReports: it is not kept.
        quill_runtime.outbox.MessageTooLarge: it is not kept.
    """
    scope = _scope(str(report.license_id))
    content = f"{organization_id} {report.completeness} {report.body}".encode()
    name = hashlib.sha256(content).hexdigest()
    if (await inbox.take_in(transaction, scope=scope, message_id=name, content=content, now=now)).verdict != "new":
        return
    if await inbox.count(transaction, scope=scope) > (REGION_REPORTS_MAX if is_of_region else REPORTS_MAX):
        raise TooManyEarlyReports
    await outbox.add(transaction, [Outgoing(DAILY_REPORTS.name, organization_id, report.to_bytes())])


async def forget_early_reports(transaction: Transaction, license_id: str) -> None:
    """Let the license keep reports anew: its organization is known now."""
    await inbox.forget(transaction, scope=_scope(license_id))


def _scope(license_id: str) -> str:
    return f"early-reports:{license_id}"
