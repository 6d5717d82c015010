"""A region's queue, spoken to over HTTP: updates arrive as PostHog's consumer reads them (wire contract 6)."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from quill_contracts import topics
from quill_contracts.limits import LimitEvidence, LimitTransition
from quill_contracts.usage import MeterUsage, PeriodUsage, PeriodUsageSnapshot
from quill_runtime import queues as runtime_queues
from quill_runtime.queues import MessageRefused, QueueAway

pytestmark = pytest.mark.integration

WITHOUT_QUEUES = """
import sys
from quill_subscriptions.app import build
from quill_subscriptions.settings import SubscriptionsSettings
build(SubscriptionsSettings(database_url="postgresql://x", kafka_bootstrap_servers="x", quill_sealing_keys={keys!r}))
sys.exit(any(name.startswith(("aiobotocore", "botocore")) for name in sys.modules))
"""
SEALING_KEYS = "k1:a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


def usage(organization_id: str, period_start: datetime, revision: int, complete: int) -> PeriodUsageSnapshot:
    now = datetime.now(UTC)
    meter = MeterUsage(complete=complete, partial=0, maximum=complete)
    return PeriodUsageSnapshot(
        organization_id=organization_id,
        revision=revision,
        as_of=now,
        periods=[
            PeriodUsage(
                period_start=period_start,
                period_end=period_start + timedelta(days=28),
                as_of=now,
                meters={"events": meter},
            )
        ],
    )


def limited(organization_id: str, period_start: datetime, usage_revision: int) -> LimitTransition:
    end, at = period_start + timedelta(days=28), datetime.now(UTC)
    evidence = LimitEvidence(
        usage=900,
        usage_revision=usage_revision,
        usage_as_of=at,
        quota=500,
        allowance=500,
        billing_limit_usd=None,
        subscribed=False,
        customer_revision=1,
        trust_score=None,
        never_drop_data=False,
        buffer=0,
        grace_days=0,
        period_start=period_start,
        period_end=end,
        previous="within",
        evaluated_at=at,
    )
    return LimitTransition(
        organization_id=organization_id,
        usage_key="events",
        sequence=1,
        from_state="within",
        to_state="limited",
        at=at,
        limited_until=end,
        rule="over_quota",
        rule_version=1,
        sentence="900 of 500 events are used.",
        evidence=evidence,
    )


@pytest.mark.parametrize("packed", [False, True])
async def test_a_region_hears_of_a_raised_limit_within_a_second(run_service: Any, region: Any, packed: bool) -> None:
    async with run_service(region=region, billing_updates_gzip=packed) as running:
        org = running.organization_id
        await running.http.get("/api/billing", headers=running.signed())
        (registered,) = await region.heard()
        assert (registered["type"], registered["organization_id"]) == ("billing_customer_update", org)
        started = await running.http.post(
            f"/v1/customers/{org}/subscription", headers=running.operator, json={"products": ["product_analytics"]}
        )
        assert started.status_code == 201, started.text
        assert await region.heard()
        asked = time.monotonic()
        raised = await running.http.patch(
            "/api/billing", headers=running.signed(), json={"custom_limits_usd": {"product_analytics": 900}}
        )
        assert raised.status_code == 200, raised.text
        (told,) = await region.heard(seconds=5)
        assert time.monotonic() - asked < 1.0
        assert told["data"]["customer"]["custom_limits_usd"] == {"product_analytics": 900}
        assert told["is_packed"] is packed


async def test_usage_waits_and_a_limit_state_that_it_changed_does_not(run_service: Any, region: Any) -> None:
    async with run_service(region=region, billing_updates_spacing_seconds=3600) as running:
        org = running.organization_id
        first = await running.http.get("/api/billing", headers=running.signed())
        start = datetime.fromisoformat(first.json()["customer"]["billing_period"]["current_period_start"])
        assert await region.heard()
        await running.publish(topics.PERIOD_USAGE.name, org, usage(org, start, 1, 100))
        assert await region.heard(seconds=1.5) == []
        await running.publish(topics.LIMIT_TRANSITIONS.name, org, limited(org, start, 2))
        await running.publish(topics.PERIOD_USAGE.name, org, usage(org, start, 2, 900))
        (told,) = await region.heard()
        assert told["data"]["customer"]["usage_summary"]["events"]["usage"] == 900
        assert await region.heard(seconds=1) == []


async def test_a_queue_that_comes_back_is_told_what_holds_by_then(run_service: Any, region: Any) -> None:
    class Elsewhere:
        """The region's queue before anybody made it."""

        address = region.address
        url = region.url + "-late"

    async with run_service(region=Elsewhere()) as running:
        org = running.organization_id
        await running.http.get("/api/billing", headers=running.signed())

        async def tried() -> bool:
            answer = await running.http.get("/v1/billing-updates?status=due", headers=running.operator)
            return any(each["error"] for each in answer.json()["results"])

        assert await running.until(tried)
        await running.http.post(
            f"/v1/customers/{org}/subscription", headers=running.operator, json={"products": ["product_analytics"]}
        )
        made = await region.sqs.create_queue(QueueName=region.url.rsplit("/", 1)[1] + "-late")
        region.url = made["QueueUrl"]
        told = await region.heard()
        assert told[-1]["data"]["customer"]["has_active_subscription"] is True

        async def settled() -> bool:
            answer = await running.http.get("/v1/billing-updates?status=due", headers=running.operator)
            return answer.json()["results"] == []

        assert await running.until(settled)


async def test_a_queue_says_no_to_what_it_will_never_take_and_is_away_otherwise(region: Any) -> None:
    to = {"attributes": {"content_type": "application/json"}, "group": "org-1", "message_key": "1"}
    async with runtime_queues.opened(region.url, endpoint_url=region.address, region="us-east-1") as queue:
        with pytest.raises(MessageRefused):
            await queue.send("{}", **{**to, "attributes": {"not a name!": "x"}})
        assert await queue.send("{}", **to)
    async with runtime_queues.opened(region.url + "-no", endpoint_url=region.address, region="us-east-1") as queue:
        with pytest.raises(QueueAway):
            await queue.send("{}", **to)


async def test_a_queue_that_keeps_order_is_told_whose_message_it_is(region: Any) -> None:
    name = f"ordered-{time.monotonic_ns()}.fifo"
    made = await region.sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})
    async with runtime_queues.opened(made["QueueUrl"], endpoint_url=region.address, region="us-east-1") as queue:
        for key in ("1", "1", "2"):
            await queue.send("{}", attributes={}, group="org-1", message_key=key)
    answer = await region.sqs.receive_message(
        QueueUrl=made["QueueUrl"], MaxNumberOfMessages=10, MessageSystemAttributeNames=["MessageGroupId"]
    )
    assert [each["Attributes"]["MessageGroupId"] for each in answer["Messages"]] == ["org-1", "org-1"]


def test_without_a_queue_nothing_of_queues_is_imported() -> None:
    script = WITHOUT_QUEUES.format(keys=SEALING_KEYS)
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=120).returncode == 0
