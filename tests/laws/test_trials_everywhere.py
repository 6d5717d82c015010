"""A free trial is the same for the page, the answer to a report, the limiter and PostHog's sorted sets (V12)."""

from datetime import UTC, datetime, timedelta

import pytest
from quill_contracts import topics
from quill_contracts.catalog_file import load_catalog
from quill_contracts.subscriptions import CatalogProduct, CustomerSnapshot
from quill_contracts.usage import PeriodUsageSnapshot
from quill_pricing.period import BillingPeriod
from quill_quota_limiter import wire as limiter_wire
from quill_quota_limiter.store.memory import MemoryBoard, MemoryLimits
from quill_quota_limiter.usecases.answers import publish_answers
from quill_quota_limiter.usecases.evaluate import evaluate_due, take_in_customers, take_in_usage
from quill_subscriptions.domain.commands import CancelSubscription, RegisterProjects, SetTrial
from quill_subscriptions.domain.customer import Project
from quill_subscriptions.store.memory import MemorySubscriptions
from quill_subscriptions.usecases.catalog import put_catalog_in_force
from quill_subscriptions.usecases.changes import change_customer, subscription_command
from quill_subscriptions.usecases.reading import view_billing
from quill_subscriptions.usecases.refreshing import refresh_due_customers
from quill_subscriptions.usecases.registration import Tenant, find_or_register
from quill_subscriptions.wire.billing_object import billing_object
from quill_subscriptions.wire.catalog import catalog_from_document
from quill_subscriptions.wire.snapshots import usage_from_wire
from quill_usage_ingest.domain.current_usage import CurrentUsage
from quill_usage_ingest.domain.cut_usage import CutUsage
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.period_usage import CounterUsage, PeriodUsage
from quill_usage_ingest.wire.period_usage import to_wire_billing_answer
from quill_usage_ingest.wire.subscriptions import from_wire_customer, from_wire_product

CATALOG = catalog_from_document(load_catalog())
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
PERIOD = BillingPeriod(OCTOBER, datetime(2026, 11, 1, tzinfo=UTC))
MICROSECOND = timedelta(microseconds=1)
FREE, USED = 1_000_000, 2_000_000
RETENTION, GROUPS, ENTERPRISE = "product_analytics_data_retention", "group_analytics", "sso_enforcement"


def october(day, hour=0):
    return datetime(2026, 10, day, hour, tzinfo=UTC)


class Installation:
    """Three services in memory, one customer, two million events used before the 4th."""

    def __init__(self):
        self.subscriptions, self.limits, self.board = MemorySubscriptions(), MemoryLimits(), MemoryBoard()
        self.seen = self.revision = 0

    async def start(self):
        await self.subscriptions.run(lambda tx: put_catalog_in_force(CATALOG, tx=tx, now=OCTOBER))
        tenant = Tenant("org-1", None, "cloud-eu", "cloud", "license:cloud-eu")
        await self.subscriptions.run(lambda tx: find_or_register(tenant, customer_id="c", tx=tx, now=OCTOBER))
        await self.change(OCTOBER, RegisterProjects((Project("1", "phc_1"),)))
        await self.settle(october(4))

    async def change(self, at, *commands):
        await self.subscriptions.run(lambda tx: change_customer("org-1", commands, actor="anna", tx=tx, now=at))

    async def subscribe(self, at):
        command = subscription_command(
            CATALOG, ["product_analytics"], {}, subscription_id="s", collection_mode="quill-rates"
        )
        await self.change(at, command)

    async def settle(self, now):
        """Everything that is due and on its way arrives: jobs run, messages are read."""
        await self.subscriptions.run(lambda tx: refresh_due_customers(tx=tx, now=now))
        usage = self.usage()
        await self.subscriptions.run(lambda tx: tx.keep_usage([usage_from_wire(usage)], now=now))
        async with self.limits.begin() as tx:
            await take_in_customers([limiter_wire.from_wire_customer(self.snapshot)], tx=tx, now=now)
            await take_in_usage([limiter_wire.from_wire_usage(usage)], tx=tx, now=now)
        await evaluate_due(store=self.limits, board=self.board, now=now)
        await publish_answers(["org-1"], store=self.limits, board=self.board)

    @property
    def snapshot(self):
        messages = [m for m in self.subscriptions.contents.published if m.topic == topics.CUSTOMERS.name]
        return CustomerSnapshot.from_bytes(messages[-1].value)

    def usage(self):
        self.revision += 1
        cuts = [cut for cut in self.snapshot.cuts if cut in PERIOD]
        return PeriodUsageSnapshot.model_validate(
            {
                "organization_id": "org-1",
                "revision": self.revision,
                "periods": [
                    {
                        "period_start": PERIOD.start,
                        "period_end": PERIOD.end,
                        "as_of": october(4),
                        "meters": {"events": {"complete": USED, "partial": 0, "maximum": USED}},
                        "cuts": [{"at": cut, "used": {"events": USED}} for cut in cuts],
                    }
                ],
            }
        )

    async def page(self, now):
        async def look(tx):
            return await view_billing(await tx.find("org-1"), tx=tx, now=now)

        view = await self.subscriptions.run(look)
        shown = billing_object(view.record.customer, view.standing, license_type="cloud", forecast=True)
        return shown["customer"]

    def answer(self, now):
        """What ``POST /api/usage`` says."""
        messages = [m for m in self.subscriptions.contents.published if m.topic == topics.CATALOG.name]
        products = [from_wire_product(CatalogProduct.from_bytes(message.value)) for message in messages]
        organization = from_wire_customer(self.snapshot)
        counters = {"event_count_in_period": CounterUsage(USED, 0, USED)}
        usage = PeriodUsage(period=PERIOD, as_of=october(4), revision=1, counters=counters)
        cuts = {cut: CutUsage(counters={"event_count_in_period": USED}) for cut in organization.cuts}
        current = CurrentUsage(organization, PERIOD, usage, MeterMap.of(products), cuts=cuts)
        return to_wire_billing_answer(current, now=now)["customer"]

    async def look(self, now):
        """Limit, usage and features as each of them says; then whether limiter and sorted sets limit events."""
        page, answer = await self.page(now), self.answer(now)
        async with self.limits.begin() as tx:
            meter = (await tx.limits(["org-1"]))["org-1"].meters["events"]
        said = [
            (each["usage_summary"]["events"], sorted(f["key"] for f in each["available_product_features"]))
            for each in (page, answer)
        ]
        assert said[0] == said[1], "the page and the answer to a report"
        assert page["free_trial_until"] == answer["free_trial_until"]
        assert page["has_active_subscription"] == answer["has_active_subscription"]
        (events, features) = said[0]
        assert (meter.quota, meter.usage) == (events["limit"], events["usage"]), "the limiter"
        product = next(each for each in page["products"] if each["type"] == "product_analytics")
        is_limited = meter.state.name == "limited"
        assert product["has_exceeded_limit"] == is_limited
        assert ("phc_1" in self.board.limited.get("events", {})) == is_limited, "PostHog's sorted set"
        ai = [each["usage_summary"]["ai_credits"] for each in (page, answer)]
        assert ai == [{"usage": 0, "limit": 0}] * 2, "no allowance, and no trial includes it"
        assert "phc_1" in self.board.limited["ai_credits"]
        return events["limit"], events["usage"], is_limited, features


BEFORE = AFTER = (FREE, USED, True, [RETENTION])
DURING = (None, USED, False, [GROUPS, RETENTION])


@pytest.fixture
async def installation():
    made = Installation()
    await made.start()
    return made


async def test_all_say_the_same_before_during_at_the_end_and_after_a_trial(installation):
    assert await installation.look(october(4)) == BEFORE
    await installation.change(october(6), SetTrial(october(21, 17)))
    for now in (october(6), october(15), october(21, 17) - MICROSECOND):
        await installation.settle(now)
        assert await installation.look(now) == DURING
    for now in (october(21, 17), october(22)):
        await installation.settle(now)
        assert await installation.look(now) == AFTER


async def test_all_say_the_same_when_a_trial_is_moved_and_removed(installation):
    for at, trial, expected in (
        (october(6), october(10), DURING),
        (october(8), october(20), DURING),
        (october(11), october(9), AFTER),
        (october(12), october(20), DURING),
        (october(13), None, AFTER),
    ):
        await installation.change(at, SetTrial(trial))
        await installation.settle(at)
        assert await installation.look(at) == expected, at


async def test_who_subscribes_in_a_trial_pays_for_nothing_that_it_used(installation):
    """K11: from the end of the trial usage begins at nothing, without a limit."""
    await installation.change(october(6), SetTrial(october(21)))
    await installation.subscribe(october(8))
    await installation.settle(october(9))
    assert await installation.look(october(9)) == DURING
    await installation.settle(october(21))
    assert await installation.look(october(21)) == (None, 0, False, [RETENTION])
    assert (await installation.page(october(21)))["current_total_amount_usd"] == "0.00"
    await installation.change(october(22), CancelSubscription())
    await installation.settle(october(22))
    assert await installation.look(october(22)) == AFTER


async def test_the_enterprise_plan_is_no_part_of_a_trial(installation):
    await installation.change(october(6), SetTrial(october(21)))
    await installation.settle(october(6))
    assert ENTERPRISE not in (await installation.look(october(6)))[3]
    retention = next(f for f in installation.snapshot.features if f.key == RETENTION)
    assert retention.limit == 7, "what is tried comes before what is free"
