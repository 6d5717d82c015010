"""An address somebody wants to be told at, and what makes it stop being told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

WebhookEvent = Literal["limits.transition", "limits.threshold"]
DisabledBecause = Literal["person", "gone", "failing"]
"""``gone``: the receiver answered 410. ``failing``: no delivery succeeded for `FAILING_MAX`."""

FAILING_MAX: Final = timedelta(days=5)
"""An endpoint that refused everything for so long is disabled: nobody listens, and a person must look."""


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """Where to deliver what.

    Attributes:
        organization_id: only this organization's events; ``None`` means everybody's.
        sealed_secret: signs; see `quill_runtime.sealing`.
        sealed_previous: signs too until ``previous_until``, so that receivers can be told of a rotation in their time.
        failing_since: first failure after the last success.
    """

    endpoint_id: str
    url: str
    description: str
    events: tuple[WebhookEvent, ...]
    organization_id: str | None
    sealed_secret: str
    created_at: datetime
    sealed_previous: str | None = None
    previous_until: datetime | None = None
    disabled_because: DisabledBecause | None = None
    failing_since: datetime | None = None

    @property
    def is_enabled(self) -> bool:
        return self.disabled_because is None

    def hears(self, event: WebhookEvent, organization_id: str) -> bool:
        """Whether an event of an organization is to be delivered here (L18)."""
        return self.is_enabled and event in self.events and self.organization_id in (None, organization_id)

    def rotated(self, sealed_secret: str, *, previous_until: datetime) -> "WebhookEndpoint":
        """With another secret; the one before it goes on signing, an older one does not."""
        return replace(
            self, sealed_secret=sealed_secret, sealed_previous=self.sealed_secret, previous_until=previous_until
        )

    def signing(self, now: datetime) -> Sequence[str]:
        """The sealed secrets that sign at an instant, the newest first."""
        if self.sealed_previous is None or self.previous_until is None or now >= self.previous_until:
            return (self.sealed_secret,)
        return (self.sealed_secret, self.sealed_previous)

    def enabled(self) -> "WebhookEndpoint":
        """Delivered to again, its failures forgiven."""
        return replace(self, disabled_because=None, failing_since=None)

    def after_success(self) -> "WebhookEndpoint":
        return replace(self, failing_since=None)

    def after_failure(self, *, is_gone: bool, now: datetime) -> "WebhookEndpoint":
        """After a delivery was not taken: failing, or disabled when it is gone or has failed for days."""
        since = self.failing_since or now
        because: DisabledBecause | None = self.disabled_because
        if because is None and is_gone:
            because = "gone"
        elif because is None and now - since >= FAILING_MAX:
            because = "failing"
        return replace(self, failing_since=since, disabled_because=because)
