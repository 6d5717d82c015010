"""How reports leave: cloud regions publish to Kafka, self-hosted instances post over HTTP with their license."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import httpx
from aiokafka import AIOKafkaProducer
from quill_contracts import topics

from quill_regions.misbehaviour import Delivery
from quill_regions.posthog_report import usage_report
from quill_regions.tokens import billing_token

REQUEST_TIMEOUT_SECONDS = 30.0
ATTEMPTS_MAX = 60
RETRY_SECONDS = 0.5


class NotAccepted(RuntimeError):
    """Billing did not take a report that is in order for half a minute."""


class CloudRegion:
    """A region: keyed, confirmed messages on ``usage.reports.v1``."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=2
        )

    async def start(self) -> None:
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """Return when Kafka has confirmed every report."""
        confirmations = [
            await self._producer.send(
                topics.USAGE_REPORTS.name,
                value=delivery.report.to_bytes(),
                key=delivery.report.organization_id.encode(),
            )
            for delivery in deliveries
        ]
        await asyncio.gather(*confirmations)


class Instance:
    """A self-hosted instance: PostHog's report over HTTP, tried again after any answer but 200, as PostHog does."""

    def __init__(self, *, client: httpx.AsyncClient, license_key: str) -> None:
        self._client = client
        self._license_key = license_key

    async def send(self, delivery: Delivery, *, now: datetime) -> dict[str, object]:
        """Post one day and return billing's answer.

        Raises:
            NotAccepted: with status and body.
        """
        organization = delivery.day.organization
        token = billing_token(
            self._license_key,
            organization_id=organization.organization_id,
            organization_name=organization.name,
            now=now,
        )
        last = "no attempt"
        for _ in range(ATTEMPTS_MAX):
            try:
                answer = await self._client.post(
                    "/api/usage",
                    json=usage_report(delivery.day),
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=REQUEST_TIMEOUT_SECONDS,
                )
            except httpx.TransportError as error:
                last = repr(error)
            else:
                if answer.status_code == httpx.codes.OK:
                    body: dict[str, object] = answer.json()
                    return body
                last = f"{answer.status_code} {answer.text[:300]}"
            await asyncio.sleep(RETRY_SECONDS)
        raise NotAccepted(f"{organization.name} {delivery.day.date}: {last}")
