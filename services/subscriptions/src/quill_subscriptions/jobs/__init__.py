"""Work that the clock starts: the catalog file, and customers whom time has changed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import structlog
from quill_contracts.catalog_file import InvalidCatalogFile, load_catalog
from quill_runtime.clock import Clock
from quill_runtime.jobs import PeriodicJob

from quill_subscriptions.domain.catalog import CatalogRefused
from quill_subscriptions.ports import SubscriptionsStore, SubscriptionsTransaction
from quill_subscriptions.usecases.catalog import put_catalog_in_force
from quill_subscriptions.usecases.refreshing import REFRESH_BATCH, refresh_due_customers
from quill_subscriptions.wire.catalog import UnusablePrice, catalog_from_document

REFRESH_BATCHES_MAX = 50

log = structlog.get_logger(__name__)


class CatalogNotInForce(Exception):
    """The configured file is not what is in force; the text says why, and what holds instead."""


@dataclass(slots=True)
class CatalogFile:
    """Reads the reviewed file and puts it in force; remembers why it could not.

    A bad file never stops the service and never touches the catalog in force: customers keep their prices while
    somebody mends the file, and the health check says what is wrong with it.
    """

    path: Path | None
    store: SubscriptionsStore
    clock: Clock
    name: str = "catalog"
    refused: str | None = field(default="the catalog file has not been read yet", init=False)

    async def start(self) -> None:
        await self.adopt(self.clock.now())

    async def stop(self) -> None:
        """Nothing is held open."""

    async def adopt(self, now: datetime) -> None:
        """Read the file and put it in force, or note and log why not."""
        try:
            proposed = catalog_from_document(load_catalog(self.path))
            changed = await self.store.run(lambda tx: put_catalog_in_force(proposed, tx=tx, now=now))
        except (InvalidCatalogFile, UnusablePrice, CatalogRefused) as error:
            if self.refused != str(error):
                log.error("catalog.refused", reason=str(error))  # noqa: TRY400 - a wrong file, not a fault of ours
            self.refused = str(error)
            return
        self.refused = None
        if changed:
            log.info("catalog.in_force", version=proposed.version, changed=[product.key for product in changed])

    async def check(self) -> None:
        """Health check.

        Raises:
            CatalogNotInForce: with the reason.
        """
        if self.refused is not None:
            raise CatalogNotInForce(self.refused)


def adopt_catalog(catalog_file: CatalogFile, *, every_seconds: float) -> PeriodicJob:
    """Looks at the file again and again: a corrected one comes into force without a restart."""
    return PeriodicJob(
        name="adopt-catalog", every_seconds=every_seconds, run=catalog_file.adopt, clock=catalog_file.clock
    )


def refresh_customers(store: SubscriptionsStore, *, every_seconds: float, clock: Clock) -> PeriodicJob:
    """Publishes a new snapshot at each boundary of a billing period or trial, and after a new catalog."""

    async def run(now: datetime) -> None:
        for _ in range(REFRESH_BATCHES_MAX):
            if await store.run(_refresh_batch(now)) < REFRESH_BATCH:
                return

    return PeriodicJob(name="refresh-customers", every_seconds=every_seconds, run=run, clock=clock)


def _refresh_batch(now: datetime) -> Callable[[SubscriptionsTransaction], Awaitable[int]]:
    return lambda tx: refresh_due_customers(tx=tx, now=now)
