"""What every service's ``build(settings)`` starts from. Nothing connects until the service runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.types import ASGIApp

from quill_runtime import dead_letters_api, health, http, operations_api
from quill_runtime.auth import ApiTokens, Keyring
from quill_runtime.clock import Clock, clock_from
from quill_runtime.consumer import Consumer
from quill_runtime.consumption import Consumption
from quill_runtime.database import Database
from quill_runtime.health import Health
from quill_runtime.keyring_table import keyring_table
from quill_runtime.lifecycle import Component, Service
from quill_runtime.outbox import Outbox, OutboxRelay
from quill_runtime.publisher import KafkaPublisher
from quill_runtime.sealing import Sealer
from quill_runtime.settings import ServiceSettings
from quill_runtime.table_reader import TableReader
from quill_runtime.watchdog import Watchdog

M = TypeVar("M")


class DatabaseComponent:
    """Waits for the database at the start, closes the pool at the end."""

    name = "database"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self) -> None:
        await self._database.ping()

    async def stop(self) -> None:
        await self._database.close()


@dataclass(slots=True)
class Foundation:
    """The shared parts of one service."""

    name: str
    settings: ServiceSettings
    database: Database
    publisher: KafkaPublisher
    outbox: Outbox
    relay: OutboxRelay
    clock: Clock
    sealer: Sealer
    tokens: ApiTokens
    keyring: Keyring
    health: Health
    _tables: list[TableReader] = field(default_factory=list)

    def consumer(self, consumption: Consumption[M]) -> Consumer[M]:
        """A consumer of one topic with this service's database and clock."""
        return Consumer(
            consumption,
            bootstrap_servers=self.settings.kafka_bootstrap_servers,
            database=self.database,
            outbox=self.outbox,
            clock=self.clock,
            group_prefix=self.settings.quill_kafka_group_prefix,
            instance_id=self.settings.quill_instance_id,
        )

    def verify_keys_from(self, topic: str, *, key_id_field: str, attributes: Sequence[str]) -> None:
        """Keep the keyring filled from a compacted topic; not ready, and no token judged, before it was read once."""
        table = keyring_table(
            topic=topic,
            bootstrap_servers=self.settings.kafka_bootstrap_servers,
            keyring=self.keyring,
            sealer=self.sealer,
            key_id_field=key_id_field,
            attributes=attributes,
        )
        self.keyring.is_read = table.caught_up.is_set
        self.keyring.is_current = table.is_current
        self._tables.append(table)
        self.health.checks["keys"] = table.check_caught_up

    def service(
        self,
        *,
        routers: Sequence[APIRouter],
        consumers: Sequence[Consumer[Any]] = (),
        stores: Sequence[Component] = (),
        components: Sequence[Component] = (),
        body_bytes_max: int = http.BODY_BYTES_MAX,
        front: Callable[[ASGIApp], ASGIApp] | None = None,
        never_404_below: Sequence[str] = (),
    ) -> Service:
        """The process: stores, publishing, tables, consumers, then the service's own components; drained in reverse.

        ``stores`` are what the service's consumers write to beside Postgres: there before them, closed after them.
        ``front`` is given the application and may answer a request before it: for the few paths where what a
        framework costs per request is most of the answer. The application goes on declaring those paths.
        Below ``never_404_below`` an unknown route answers 501 instead of 404.
        """
        self.health.consumers = consumers
        app = http.create_app(
            title=self.name,
            routers=[
                *routers,
                operations_api.router(database=self.database, tokens=self.tokens, clock=self.clock),
                dead_letters_api.router(
                    database=self.database, outbox=self.outbox, tokens=self.tokens, clock=self.clock
                ),
                health.router(self.health),
            ],
            body_bytes_max=body_bytes_max,
            never_404_below=never_404_below,
        )
        ordered: list[Component] = [
            DatabaseComponent(self.database),
            *stores,
            self.publisher,
            self.relay,
            *self._tables,
            *consumers,
            *components,
            Watchdog(consumers),
        ]
        return Service(self.name, app, ordered, self.health, front(app) if front else None)


def lay_foundation(name: str, settings: ServiceSettings) -> Foundation:
    """Read the settings into parts.

    Raises:
        InvalidSealingKeys | InvalidApiTokens: naming the entry; the process must not start.
    """
    database = Database(settings.database_url, pool_size=settings.database_pool_size, application_name=name)
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers, client_id=name)
    outbox = Outbox()
    clock = clock_from(settings.quill_clock_file)
    return Foundation(
        name=name,
        settings=settings,
        database=database,
        publisher=publisher,
        outbox=outbox,
        relay=OutboxRelay(database=database, outbox=outbox, publisher=publisher),
        clock=clock,
        sealer=Sealer.parse(settings.quill_sealing_keys.get_secret_value()),
        tokens=ApiTokens.parse(settings.quill_api_tokens.get_secret_value()),
        keyring=Keyring(),
        health=Health(checks={"database": database.ping}, database=database),
    )
