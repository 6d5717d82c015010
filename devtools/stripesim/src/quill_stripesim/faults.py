"""Misbehaviour on request: what a client of Stripe must survive, made to happen at a chosen moment."""

from dataclasses import dataclass, field
from typing import Literal

RequestFaultKind = Literal[
    "rate_limit", "lock_timeout", "error_500", "error_500_after_commit", "timeout_after_commit", "slow"
]


@dataclass(slots=True)
class RequestFault:
    """A fault for the next requests that match.

    Attributes:
        kind: `rate_limit` and `lock_timeout` answer 429 before anything happens; `error_500` executes nothing and is
            remembered under the idempotency key; `error_500_after_commit` executes, then says 500, and remembers both;
            `timeout_after_commit` executes and hangs up; `slow` waits first, holding the key.
        remaining: How many more requests it hits.
        method: Only requests with this method, or any.
        path_prefix: Only paths that begin so.
        delay_seconds: How long `slow` waits.
    """

    kind: RequestFaultKind
    remaining: int
    method: str | None = None
    path_prefix: str = "/v1/"
    delay_seconds: float = 0.0


@dataclass(slots=True)
class WebhookFaults:
    """How deliveries misbehave, counted so that a run repeats exactly.

    Attributes:
        duplicate_every: Every n-th delivery is sent twice; 0 is never.
        drop_every: Every n-th delivery is never sent, so only reading the events finds it; 0 is never.
        reorder: Deliver what is pending newest first.
        delay_seconds: Wait this long after the change.
        api_version: The version that bodies claim, as those of an endpoint with another one do; None: the pinned.
    """

    duplicate_every: int = 0
    drop_every: int = 0
    reorder: bool = False
    delay_seconds: float = 0.0
    api_version: str | None = None


@dataclass(slots=True)
class Faults:
    """Every fault in force. Faults are not state of Stripe: a restart forgets them."""

    requests: list[RequestFault] = field(default_factory=list)
    webhooks: WebhookFaults = field(default_factory=WebhookFaults)

    def take(self, method: str, path: str) -> RequestFault | None:
        """Returns the first fault that hits a request, counting it down."""
        for fault in self.requests:
            if fault.method in {None, method} and path.startswith(fault.path_prefix):
                fault.remaining -= 1
                if fault.remaining <= 0:
                    self.requests.remove(fault)
                return fault
        return None
