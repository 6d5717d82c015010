"""The one place that knows concrete classes. Nothing connects before the service runs."""

from quill_contracts import topics
from quill_runtime.assembly import lay_foundation
from quill_runtime.lifecycle import Service

from quill_subscriptions import consumers, jobs
from quill_subscriptions.api.access import Access
from quill_subscriptions.api.billing import billing_routes
from quill_subscriptions.api.catalog import catalog_routes
from quill_subscriptions.api.customers import customer_routes
from quill_subscriptions.api.licenses import license_routes
from quill_subscriptions.settings import SubscriptionsSettings
from quill_subscriptions.store.postgres import PostgresSubscriptions


def build(settings: SubscriptionsSettings) -> Service:
    """Put the service together from its settings."""
    foundation = lay_foundation("subscriptions", settings)
    foundation.verify_keys_from(topics.LICENSES.name, key_id_field="license_id", attributes=("type", "source"))
    store = PostgresSubscriptions(foundation.database, foundation.outbox)
    access = Access(foundation.keyring, foundation.tokens, foundation.clock)
    catalog_file = jobs.CatalogFile(settings.catalog_file, store, foundation.clock)
    foundation.health.checks["catalog"] = catalog_file.check
    return foundation.service(
        routers=[
            billing_routes(store, access),
            customer_routes(store, access),
            license_routes(store, access),
            catalog_routes(store, access),
        ],
        consumers=[foundation.consumer(consumers.period_usage(store.within))],
        components=[
            catalog_file,
            jobs.adopt_catalog(catalog_file, every_seconds=settings.catalog_check_seconds),
            jobs.refresh_customers(store, every_seconds=settings.refresh_seconds, clock=foundation.clock),
        ],
    )
