"""The store on Postgres: one transaction over every part."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quill_runtime.database import Database, Transaction
from quill_runtime.outbox import Outbox

from quill_invoicing.store.alert_rows import AlertRows
from quill_invoicing.store.credit_rows import CreditRows
from quill_invoicing.store.customer_rows import CustomerRows
from quill_invoicing.store.invoice_rows import InvoiceRows
from quill_invoicing.store.rail_rows import RailRows
from quill_invoicing.store.source_rows import SourceRows
from quill_invoicing.store.usage_rows import UsageRows


class PostgresTransaction(CustomerRows, UsageRows, SourceRows, InvoiceRows, CreditRows, RailRows, AlertRows):
    """Everything this service owns, inside one transaction; announcements go to the outbox with it."""

    def __init__(self, transaction: Transaction, outbox: Outbox) -> None:
        InvoiceRows.__init__(self, transaction, outbox)


class PostgresStore:
    """Opens transactions on one database."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresTransaction]:
        async with self._database.begin() as transaction:
            yield self.within(transaction)

    def within(self, transaction: Transaction) -> PostgresTransaction:
        """The same over a transaction that somebody else opened and commits."""
        return PostgresTransaction(transaction, self._outbox)
