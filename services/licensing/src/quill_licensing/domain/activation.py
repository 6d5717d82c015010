"""Which organizations a license is used for, as far as subscriptions has told."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Activation:
    """A license is in use for an organization: one for a self-hosted license, many for a region's (L17)."""

    license_id: str
    organization_id: str
    organization_name: str
    first_seen_at: datetime
    """When the customer's snapshot that named the license came into force."""
