"""What limits announce, as deliveries to whoever listens: written down in the transaction that made it true (L15)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from quill_quota_limiter import wire
from quill_quota_limiter.domain.evaluation import Evaluation
from quill_quota_limiter.domain.threshold import ThresholdReached
from quill_quota_limiter.domain.webhook_delivery import plan
from quill_quota_limiter.domain.webhook_endpoint import WebhookEvent
from quill_quota_limiter.ports import WebhookBook
from quill_quota_limiter.wire.webhooks import to_body


@dataclass(frozen=True, slots=True)
class _Fact:
    event: WebhookEvent
    fact_id: str
    organization_id: str
    body: bytes
    at: datetime


async def plan_deliveries(
    evaluations: Sequence[Evaluation], news: Sequence[ThresholdReached], *, book: WebhookBook
) -> None:
    """One delivery per fact and endpoint that hears it; a fact's number or id makes the key, so none is made twice.

    Args:
        evaluations: whose transitions happened.
        news: thresholds nobody was told about before.
        book: the transaction's.
    """
    if not news and not any(evaluation.transitions for evaluation in evaluations):
        return
    listening = [endpoint for endpoint in await book.endpoints() if endpoint.is_enabled]
    if not listening:
        return
    told = {each.reached_id for each in news}
    await book.plan(
        [
            plan(
                endpoint_id=endpoint.endpoint_id,
                event=fact.event,
                fact_id=fact.fact_id,
                organization_id=fact.organization_id,
                body=fact.body,
                now=fact.at,
            )
            for evaluation in evaluations
            for fact in _facts(evaluation, told)
            for endpoint in listening
            if endpoint.hears(fact.event, fact.organization_id)
        ]
    )


def _facts(evaluation: Evaluation, told: set[str]) -> Iterator[_Fact]:
    revision = evaluation.limits.revision
    for each in evaluation.transitions:
        of_scope = "" if each.scope is None else f"{each.scope}/"
        yield _Fact(
            "limits.transition",
            f"{each.organization_id}/{each.usage_key}/{of_scope}{each.sequence}",
            each.organization_id,
            to_body("limits.transition", wire.to_wire_transition(each), at=each.at, revision=revision),
            each.at,
        )
    for reached in evaluation.reached:
        if reached.reached_id in told:
            message = wire.to_wire_reached(reached)
            body = to_body("limits.threshold", message, at=reached.at, revision=revision)
            yield _Fact("limits.threshold", reached.reached_id, reached.organization_id, body, reached.at)
