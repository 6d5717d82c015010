"""How many deliveries may be on their way at once, so that no endpoint holds up the others."""

from collections.abc import Mapping
from dataclasses import dataclass

from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint


@dataclass(frozen=True, slots=True)
class Rooms:
    """How many deliveries may be taken: in all, and per endpoint with those in hand counted in."""

    total: int
    per_endpoint: int
    in_hand: Mapping[str, int]

    def of(self, endpoint: WebhookEndpoint) -> int:
        """Room left for an endpoint; one that is failing is tried with one delivery at a time."""
        room = 1 if endpoint.failing_since is not None else self.per_endpoint
        return max(0, room - self.in_hand.get(endpoint.endpoint_id, 0))
