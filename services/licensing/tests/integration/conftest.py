"""A migrated database per test, a mail server on loopback, and licensing running on real stores."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

import httpx
import pytest
from aiosmtpd.smtp import SMTP
from quill_contracts import topics
from quill_licensing.app import build
from quill_licensing.settings import LicensingSettings
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_stack.kafka import TopicSpec

OPERATOR = "quill_op_for_tests"


@pytest.fixture(scope="session")
def migrated_template() -> dict[str, str]:
    return {}


@pytest.fixture
async def migrated_url(create_database: Callable[..., str], migrated_template: dict[str, str]) -> str:
    if "name" not in migrated_template:
        url = create_database()
        await migrate(url, (runtime_history(), service_history("quill_licensing")))
        migrated_template["name"] = url.rsplit("/", 1)[1].split("?")[0]
    return create_database(template=migrated_template["name"])


@dataclass
class MailServer:
    """Takes mails, or answers RCPT with ``refusal``; may be down."""

    port: int = 0
    refusal: str | None = None
    mails: list[EmailMessage] = field(default_factory=list)
    attempts: int = 0
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, hostname="localhost"), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802 - aiosmtpd's name
        self.attempts += 1
        if self.refusal:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 - aiosmtpd's name
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 kept"


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    server = MailServer()
    await server.start()
    yield server
    await server.stop()


@dataclass
class Licensing:
    client: httpx.AsyncClient
    settings: LicensingSettings
    operator: dict[str, str]


@pytest.fixture
def run_licensing(stores, migrated_url, mail_server):
    """``async with run_licensing(**settings) as licensing``: the real service, asked without a socket of its own."""
    stores.create_topics(
        TopicSpec(name, 1, {}) for topic in (topics.LICENSES, topics.CUSTOMERS) for name in (topic.name, topic.dead)
    )

    @asynccontextmanager
    async def run(**changed):
        settings = LicensingSettings(
            **{
                "database_url": migrated_url,
                "kafka_bootstrap_servers": stores.kafka_bootstrap_servers,
                "quill_kafka_group_prefix": migrated_url.rsplit("/", 1)[1] + ".",
                "quill_sealing_keys": "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode(),
                "quill_api_tokens": ",".join(
                    f"{name}:{scope}:{hashlib.sha256(token.encode()).hexdigest()}"
                    for name, scope, token in [("kim", "operator", OPERATOR), ("svc", "service", "service-token")]
                ),
                "smtp_host": "127.0.0.1",
                "smtp_port": mail_server.port,
                "smtp_from": "billing@quill.example",
                "smtp_timeout_seconds": 5,
                **changed,
            }
        )
        service = build(settings)
        transport = httpx.ASGITransport(service.app, client=("198.51.100.7", 50_000))
        async with (
            service.running(),
            httpx.AsyncClient(transport=transport, base_url="http://licensing") as client,
        ):
            yield Licensing(client, settings, {"Authorization": f"Bearer {OPERATOR}"})

    return run
