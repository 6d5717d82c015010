"""Who uses the product: organizations with a region, a plan and an appetite, all drawn from one seed."""

import random
import uuid
from dataclasses import dataclass
from typing import Final, Literal

Plan = Literal["free", "paid", "capped"]
"""``free``: no subscription. ``paid``: subscribed without limits. ``capped``: subscribed, with a billing limit."""

REGIONS: Final = ("us", "eu")
"""Cloud regions that publish to Kafka."""
QUEUE_REGION: Final = "ap"
"""The cloud region that reports through queues and a bucket; every eleventh organization lives there."""
QUEUE_REGION_EVERY: Final = 11
INSTANCE_SHARE: Final = 0.06
"""Share of organizations that run their own instance, one each (L17)."""
PLAN_WEIGHTS: Final[dict[Plan, int]] = {"free": 62, "paid": 28, "capped": 10}
BILLING_LIMITS_USD: Final = (0, 25, 100, 500)
TAIL: Final = 1.15
"""Shape of the Pareto tail: a few organizations use most of everything, as in life."""

TYPICAL_DAY: Final[dict[str, int]] = {
    "event_count_in_period": 9_000,
    "recording_count_in_period": 60,
    "billable_feature_flag_requests_count_in_period": 8_000,
    "survey_responses_count_in_period": 12,
    "rows_synced_in_period": 12_000,
    "exceptions_captured_in_period": 900,
    "ai_credits_used_in_period": 15,
    "event_count_with_groups_in_period": 3_000,
    "workflow_emails_sent_in_period": 150,
}
"""What the smallest organization does in a day; the appetite multiplies it."""


@dataclass(frozen=True, slots=True)
class Organization:
    """One organization of the simulation. ``source`` is the region's name, or the instance's own."""

    organization_id: str
    name: str
    email: str
    source: str
    self_hosted: bool
    plan: Plan
    billing_limits_usd: dict[str, int]
    appetite: dict[str, int]
    teams: tuple[str, ...]

    @property
    def project_tokens(self) -> dict[str, str]:
        """API token of each team, as PostHog hands them out."""
        return {team: f"phc_{self.organization_id.replace('-', '')[:20]}_{team}" for team in self.teams}


def draw_organizations(*, seed: int, count: int) -> tuple[Organization, ...]:
    """``count`` organizations; the same seed draws the same ones."""
    randomness = random.Random(f"organizations:{seed}")
    return tuple(_draw(randomness, seed, number) for number in range(count))


def _draw(randomness: random.Random, seed: int, number: int) -> Organization:
    is_queue_region = number % QUEUE_REGION_EVERY == QUEUE_REGION_EVERY - 1
    self_hosted = randomness.random() < INSTANCE_SHARE and not is_queue_region
    plan = randomness.choices(list(PLAN_WEIGHTS), list(PLAN_WEIGHTS.values()))[0]
    size = min(randomness.paretovariate(TAIL), 2_000.0)
    appetite = {
        counter: int(typical * size * randomness.uniform(0.2, 1.8)) if randomness.random() < _habit(counter) else 0
        for counter, typical in TYPICAL_DAY.items()
    }
    teams = tuple(str(number * 10 + team) for team in range(1, randomness.choice((2, 2, 3, 4))))
    limits = {"product_analytics": randomness.choice(BILLING_LIMITS_USD)} if plan == "capped" else {}
    region = randomness.choice(REGIONS) if not self_hosted else ""
    if is_queue_region:
        region = QUEUE_REGION
    return Organization(
        organization_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"quill:{seed}:{number}")),
        name=f"Organization {number:03d}",
        email=f"owner-{number:03d}@example.test",
        source=f"instance-{number:03d}" if self_hosted else region,
        self_hosted=self_hosted,
        plan=plan,
        billing_limits_usd=limits,
        appetite=appetite,
        teams=teams,
    )


def _habit(counter: str) -> float:
    """How many organizations use a product at all."""
    return 1.0 if counter == "event_count_in_period" else 0.45
