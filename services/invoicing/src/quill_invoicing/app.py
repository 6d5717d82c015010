"""The one place that knows every concrete class."""

from datetime import timedelta
from typing import Any

import structlog
from quill_contracts import topics
from quill_runtime.assembly import lay_foundation
from quill_runtime.auth import Keyring
from quill_runtime.consumer import Consumer
from quill_runtime.lifecycle import Component, Service

from quill_invoicing import api, consumers, jobs
from quill_invoicing.gateways import stripe_webhooks
from quill_invoicing.gateways.stripe import API_VERSION, StripeRail
from quill_invoicing.ports import PaymentRail
from quill_invoicing.settings import InvoicingSettings
from quill_invoicing.store.postgres import PostgresStore

log = structlog.get_logger(__name__)


class RailComponent:
    """Gives up the rail's connections at the end, and says at the start when there is no rail."""

    name = "payment-rail"

    def __init__(self, rail: PaymentRail | None) -> None:
        self._rail = rail

    async def start(self) -> None:
        if self._rail is None:
            log.warning("rail.missing", detail="STRIPE_API_KEY is not set: invoices are made, collection waits")

    async def stop(self) -> None:
        if self._rail is not None:
            await self._rail.close()


def build(settings: InvoicingSettings) -> Service:
    """Put the service together; nothing connects before it runs."""
    foundation = lay_foundation("invoicing", settings)
    foundation.verify_keys_from(topics.LICENSES.name, key_id_field="license_id", attributes=("type", "source"))
    store = PostgresStore(foundation.database, foundation.outbox)
    rail = rail_from(settings)
    topic_consumers: list[Consumer[Any]] = [
        foundation.consumer(consumers.customers(store.within)),
        foundation.consumer(
            consumers.period_usage(store.within, report_every=timedelta(hours=settings.stripe_report_hours))
        ),
        foundation.consumer(
            consumers.late_usage(store.within, report_every=timedelta(hours=settings.stripe_report_hours))
        ),
        foundation.consumer(consumers.usage_sources(store.within)),
    ]
    components: list[Component] = [
        RailComponent(rail),
        *jobs.clockwork(
            store=store,
            rail=rail,
            settings=settings,
            clock=foundation.clock,
            caught_up=jobs.has_read_everything(topic_consumers),
            reaches_now=jobs.reads_up_to_now(topic_consumers),
            source_of_license=lambda license_id: _source_of(foundation.keyring, license_id),
            api_version=API_VERSION,
        ),
    ]
    if rail is not None:
        components += jobs.rail_runners(
            database=foundation.database,
            store=store,
            within=store.within,
            rail=rail,
            clock=foundation.clock,
            workers=settings.operation_workers,
        )
    callers = api.Callers(tokens=foundation.tokens, keyring=foundation.keyring, clock=foundation.clock)
    return foundation.service(
        routers=[
            api.invoices(
                store=store,
                callers=callers,
                tokens=foundation.tokens,
                clock=foundation.clock,
                has_rail=rail is not None,
            ),
            api.operator_alerts(store=store, tokens=foundation.tokens, clock=foundation.clock),
            api.owed_credits(store=store, tokens=foundation.tokens),
            api.closings(store=store, tokens=foundation.tokens),
            api.webhooks(
                store=store,
                read=stripe_webhooks.receive,
                secrets=settings.webhook_secrets,
                clock=foundation.clock,
            ),
        ],
        consumers=topic_consumers,
        components=components,
    )


def _source_of(keyring: Keyring, license_id: str) -> str | None:
    """The name under which a license reports usage; None for one that is not known here."""
    key = keyring.find(license_id)
    return None if key is None else key.attributes.get("source")


def rail_from(settings: InvoicingSettings) -> PaymentRail | None:
    """Stripe when there is a key; otherwise collection waits."""
    key = settings.stripe_api_key.get_secret_value()
    if not key:
        return None
    return StripeRail(
        api_key=key,
        api_base=settings.stripe_api_base,
        test_payment_method=settings.stripe_test_payment_method,
    )
