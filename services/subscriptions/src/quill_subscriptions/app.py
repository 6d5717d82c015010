"""The one place that knows concrete classes. Nothing connects before the service runs."""

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from quill_contracts import topics
from quill_runtime.assembly import Foundation, lay_foundation
from quill_runtime.consumer import Consumer
from quill_runtime.lifecycle import Component, Service
from quill_runtime.read_up_to_now import ReadUpToNow

from quill_subscriptions import consumers, jobs
from quill_subscriptions.api.access import Access
from quill_subscriptions.api.billing import billing_routes
from quill_subscriptions.api.billing_updates import billing_update_routes
from quill_subscriptions.api.catalog import catalog_routes
from quill_subscriptions.api.customers import customer_routes
from quill_subscriptions.api.licenses import license_routes
from quill_subscriptions.api.quantities import quantity_routes
from quill_subscriptions.domain.customer import Customer
from quill_subscriptions.settings import SubscriptionsSettings
from quill_subscriptions.store.postgres import PostgresSubscriptions


def build(settings: SubscriptionsSettings) -> Service:
    """Put the service together from its settings."""
    foundation = lay_foundation("subscriptions", settings)
    foundation.verify_keys_from(topics.LICENSES.name, key_id_field="license_id", attributes=("type", "source"))
    store = PostgresSubscriptions(foundation.database, foundation.outbox, settings.update_policy)
    access = Access(foundation.keyring, foundation.tokens, foundation.clock)
    catalog_file = jobs.CatalogFile(settings.catalog_file, store, foundation.clock)
    foundation.health.checks["catalog"] = catalog_file.check
    usage = foundation.consumer(consumers.period_usage(store.within))
    consuming: list[Consumer[Any]] = [usage]
    if settings.update_queues:
        consuming.append(foundation.consumer(consumers.limit_transitions(store.within)))
    return foundation.service(
        routers=[
            billing_routes(store, access, ReadUpToNow(usage, foundation.database).wait),
            customer_routes(store, access),
            quantity_routes(store, access),
            license_routes(store, access),
            catalog_routes(store, access),
            billing_update_routes(store, access),
        ],
        never_404_below=("/api",),
        consumers=consuming,
        components=[
            catalog_file,
            jobs.adopt_catalog(catalog_file, every_seconds=settings.catalog_check_seconds),
            jobs.refresh_customers(store, every_seconds=settings.refresh_seconds, clock=foundation.clock),
            *_update_senders(settings, store, foundation),
        ],
    )


def _update_senders(
    settings: SubscriptionsSettings, store: PostgresSubscriptions, foundation: Foundation
) -> list[Component]:
    """One sender per queue; without a queue nothing of queues is even imported."""
    licenses_of: dict[str, list[str]] = {}
    for license_id, url in settings.update_queues.items():
        licenses_of.setdefault(url, []).append(license_id)
    if not licenses_of:
        return []
    from quill_runtime import queues

    from quill_subscriptions.jobs.billing_updates import BillingUpdateSender

    def license_type_of(customer: Customer) -> str:
        key = foundation.keyring.find(customer.license_id)
        return customer.license_type if key is None else key.attributes["type"]

    def open_queue(url: str) -> AbstractAsyncContextManager[queues.SqsQueue]:
        return queues.opened(
            url,
            endpoint_url=settings.aws_endpoint_url,
            region=settings.aws_region,
            read_timeout_seconds=queues.SEND_READ_TIMEOUT_SECONDS,
        )

    return [
        BillingUpdateSender(
            store=store,
            open_queue=partial(open_queue, url),
            license_ids=license_ids,
            license_type_of=license_type_of,
            packed=settings.billing_updates_gzip,
            every_seconds=settings.billing_updates_check_seconds,
            clock=foundation.clock,
        )
        for url, license_ids in licenses_of.items()
    ]
