"""Standard Webhooks signatures: who sends can be proven by whoever holds the secret."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime


def signed_headers(*, delivery_id: str, body: bytes, secrets: Sequence[bytes], now: datetime) -> dict[str, str]:
    """``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``; one signature per secret, the newest first.

    The timestamp is the try's, so that a receiver may refuse what was recorded and sent again later.
    """
    timestamp = str(int(now.timestamp()))
    signed = b".".join((delivery_id.encode(), timestamp.encode(), body))
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }
