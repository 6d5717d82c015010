"""Whether a webhook is really from Stripe, and what it is about (L19)."""

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from quill_invoicing.domain.webhook import Webhook

TOLERANCE_SECONDS = 300
"""Both ways: Stripe's own check lets a signature from the future pass, and with it a replay kept for later."""
SIGNATURES_MAX = 10


class BadSignature(ValueError):
    """The header does not prove that Stripe sent this body now."""


class NotAnEvent(ValueError):
    """Signed, but no event that we can read."""


def receive(raw: bytes, signature: str | None, *, secrets: Sequence[str], now: datetime) -> Webhook:
    """The event in a body that Stripe has signed.

    Raises:
        BadSignature: it has not.
        NotAnEvent: it has, but we cannot read it.
    """
    verify(raw, signature, secrets=secrets, now=now)
    return read_event(raw)


def verify(raw: bytes, header: str | None, *, secrets: Sequence[str], now: datetime) -> None:
    """Check the signature over the raw bytes, by the service's clock, with every secret in force (rotation).

    Raises:
        BadSignature: no secret fits, or the signature is not of these five minutes.
    """
    fields = [part.strip().partition("=") for part in (header or "").split(",")]
    stamps = [value for name, _, value in fields if name == "t"]
    signatures = [value for name, _, value in fields if name == "v1"][:SIGNATURES_MAX]
    if len(stamps) != 1 or not (stamps[0].isascii() and stamps[0].isdigit()) or not signatures:
        raise BadSignature("the Stripe-Signature header needs one t= and at least one v1=")
    if abs(int(now.timestamp()) - int(stamps[0])) > TOLERANCE_SECONDS:
        raise BadSignature("the signature is not of the last five minutes")
    signed = stamps[0].encode() + b"." + raw
    for secret in secrets:
        expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()
        if any(hmac.compare_digest(expected, signature.encode()) for signature in signatures):
            return
    raise BadSignature("no signature fits the body")


def read_event(raw: bytes) -> Webhook:
    """The event in a verified body.

    Raises:
        NotAnEvent: naming what is missing.
    """
    try:
        event = json.loads(raw)
        about = event["data"]["object"] if event["object"] == "event" else event.get("related_object") or {}
        identifier = about.get("id")
        api_version = event.get("api_version")
        return Webhook(
            event_id=_text(event["id"]),
            type=_text(event["type"]),
            api_version=None if api_version is None else _text(api_version),
            object_id=None if identifier is None else _text(identifier),
            created=_instant(event["created"]),
            raw=raw,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise NotAnEvent(f"the body is not an event: {error!r}"[:300]) from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 255:  # noqa: PLR2004 - Stripe's bound on ids
        raise ValueError("ids and types are strings of 1 to 255 characters")
    return value


def _instant(value: object) -> datetime:
    """Snapshot events carry unix seconds, thin ones an ISO instant."""
    if isinstance(value, int) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(_text(value)).astimezone(UTC)
