"""Whatever fails and whoever crashes: one row per endpoint and fact, and delivered once the receiver heals (L15)."""

import asyncio
import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import PeriodUsageSnapshot
from quill_limits.webhooks import verify
from quill_quota_limiter import wire
from quill_quota_limiter.api.webhooks import SecretMint
from quill_quota_limiter.domain.webhook_delivery import DeliveryOutcome
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint
from quill_quota_limiter.gateways.webhook_courier import WebhookCourier
from quill_quota_limiter.store.memory import MemoryLimits
from quill_quota_limiter.usecases.change_webhooks import add_endpoint
from quill_quota_limiter.usecases.evaluate import take_in_customers, take_in_usage
from quill_runtime.sealing import Sealer

START = datetime(2026, 10, 10, 12, tzinfo=UTC)
SEALER = Sealer.parse("k1:" + "A" * 43)


class SettableClock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at


class Crash(BaseException):
    """The process is gone: nothing behind this line has happened."""


class Receiver:
    """Answers as it is told and checks every signature; ``crashes`` takes the delivery and the sender dies."""

    def __init__(self, secrets, clock) -> None:
        self.secrets, self.clock, self.answer = secrets, clock, 500
        self.taken = defaultdict(list)
        self.seen = defaultdict(list)

    async def check(self, url) -> None: ...

    async def send(self, url, *, headers, body):
        webhook_id = verify([self.secrets[url]], headers, body, self.clock.now())
        self.seen[webhook_id].append((url, body))
        if self.answer == "crash":
            raise Crash
        if self.answer == "timeout":
            return DeliveryOutcome(error="no answer")
        if self.answer == 200:
            self.taken[webhook_id].append(body)
        return DeliveryOutcome(status=self.answer)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["usage", "same usage", "quota", "deliver", "wait", "restart"]),
        st.integers(0, 2_000),
        st.sampled_from([200, 500, 301, "timeout", "crash"]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_one_row_per_endpoint_and_fact_and_all_delivered_when_the_receiver_heals(steps):
    asyncio.run(_play(steps))


async def _play(steps):
    store, clock = MemoryLimits(), SettableClock()
    secrets = {}
    for number, organization in enumerate((None, "acme", "beta")):
        secret, sealed = SecretMint(SEALER).mint(f"whe_{number}")
        url = f"https://{number}.example/"
        secrets[url] = secret
        endpoint = WebhookEndpoint(
            f"whe_{number}", url, "", ("limits.transition", "limits.threshold"), organization, sealed, START
        )
        async with store.begin() as tx:
            await add_endpoint(endpoint, actor="ada", reason="test", tx=tx)
    receiver = Receiver(secrets, clock)

    def new_courier():
        return WebhookCourier(store=store, sender=receiver, sealer=SEALER, clock=clock)

    courier = new_courier()

    async def deliver(answer):
        nonlocal courier
        receiver.answer = answer
        try:
            tries = await courier.deliver_due()
        except Crash:
            courier, tries = new_courier(), 1
        return tries

    revision, used, quota = 1, 0, 1_000
    await arrive(store, customer(revision, quota), usage(revision, used), clock)
    for kind, number, answer in steps:
        clock.at += timedelta(seconds=number % 7)
        if kind in ("usage", "same usage", "quota"):
            revision += kind != "same usage"
            used = number if kind == "usage" else used
            quota = number + 1 if kind == "quota" else quota
            await arrive(store, customer(revision, quota), usage(revision, used), clock)
        elif kind == "deliver":
            await deliver(answer)
        elif kind == "restart":
            courier = new_courier()
        else:
            clock.at += timedelta(seconds=number)
    for _ in range(300):
        clock.at += timedelta(minutes=5)
        await deliver(200)

    facts = [(m.topic, m.value) for m in store.published if "transitions" in m.topic or "thresholds" in m.topic]
    async with store.begin() as tx:
        rows = await tx.webhooks.deliveries(at_most=10_000)
    assert len({row.delivery_id for row in rows}) == len(rows)
    of_acme = {row.endpoint_id: [] for row in rows}
    for row in rows:
        of_acme[row.endpoint_id].append(json.loads(row.body)["data"])
    assert set(of_acme) == {"whe_0", "whe_1"}
    expected = sorted(json.dumps(json.loads(value), sort_keys=True) for _, value in facts)
    for delivered in of_acme.values():
        assert sorted(json.dumps(each, sort_keys=True) for each in delivered) == expected
    assert {row.status for row in rows} == {"delivered"}
    for row in rows:
        assert receiver.taken[row.delivery_id], "at least once"
        assert {body for _, body in receiver.seen[row.delivery_id]} == {row.body}, "and always the same"


async def arrive(store, *snapshots_and_clock):
    *snapshots, clock = snapshots_and_clock
    for snapshot in snapshots:
        async with store.begin() as tx:
            if isinstance(snapshot, CustomerSnapshot):
                await take_in_customers([wire.from_wire_customer(snapshot)], tx=tx, now=clock.now())
            else:
                await take_in_usage([wire.from_wire_usage(snapshot)], tx=tx, now=clock.now())


def customer(revision, quota):
    october, november = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    return CustomerSnapshot.model_validate(
        {
            "organization_id": "acme",
            "customer_id": "c",
            "revision": revision,
            "effective_at": october,
            "license_id": "l",
            "license_type": "cloud",
            "schedule": {"anchor": october, "interval": "month"},
            "period": {"start": october, "end": november},
            "has_active_subscription": False,
            "items": [
                {
                    "product_key": "events",
                    "usage_key": "events",
                    "counter": "events_in_period",
                    "price_id": "standard",
                    "price": {"model": "per_unit", "unit_amount": "0.01"},
                    "subscribed": False,
                    "allowance": quota,
                    "quota": quota,
                }
            ],
            "trust_scores": {},
            "never_drop_data": False,
            "projects": [],
        }
    )


def usage(revision, used):
    october, november = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    meters = {"events": {"complete": used, "partial": 0, "maximum": used}}
    period = {"period_start": october, "period_end": november, "as_of": october, "meters": meters}
    return PeriodUsageSnapshot.model_validate({"organization_id": "acme", "revision": revision, "periods": [period]})
