"""The token PostHog's client signs with a license key (wire contract 1.1)."""

from datetime import datetime, timedelta
from typing import Any

import jwt

AUDIENCE = "posthog:license-key"
LIFETIME = timedelta(minutes=15)


def billing_token(
    license_key: str, *, organization_id: str, organization_name: str, now: datetime, **claims: Any
) -> str:
    """HS256 by the second half of ``<id>::<secret>``; ``claims`` are added or take the place of the usual ones."""
    license_id, _, secret = license_key.partition("::")
    usual = {
        "exp": int((now + LIFETIME).timestamp()),
        "aud": AUDIENCE,
        "id": license_id,
        "organization_id": organization_id,
        "organization_name": organization_name,
    }
    return jwt.encode({**usual, **claims}, secret, algorithm="HS256")
