"""The clock in: mails that are due, and signup buckets that say nothing any more."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from quill_runtime.clock import Clock
from quill_runtime.database import Transaction
from quill_runtime.jobs import PeriodicJob
from quill_runtime.operations import Conclude, Operation, Perform, PermanentFailure

from quill_licensing.ports import LicenseStore, Mailer, MailRefused, SecretSealer
from quill_licensing.usecases import forget_full_buckets, send_license_mail

BUCKETS_EVERY_SECONDS = 600.0


def license_mail(*, store: LicenseStore, sealer: SecretSealer, mailer: Mailer) -> tuple[Perform, Conclude]:
    """How a ``send_license_mail`` operation is done; its row names the license and never holds the key."""

    async def perform(operation: Operation) -> Mapping[str, Any]:
        try:
            return await send_license_mail(operation.request["license_id"], store=store, sealer=sealer, mailer=mailer)
        except MailRefused as refused:
            raise PermanentFailure(str(refused)) from refused

    async def conclude(_tx: Transaction, _operation: Operation, _result: Mapping[str, Any], _now: datetime) -> None:
        """The operation's own row says that the mail went out; nothing else changes."""

    return perform, conclude


def drop_full_buckets(*, store: LicenseStore, clock: Clock) -> PeriodicJob:
    """Keep the table of signup buckets as small as the number of recent strangers."""

    async def run(now: datetime) -> object:
        return await forget_full_buckets(store=store, now=now)

    return PeriodicJob(name="drop-full-signup-buckets", every_seconds=BUCKETS_EVERY_SECONDS, run=run, clock=clock)
