"""For receivers: whether a webhook came from Quill (Standard Webhooks; the standard library is enough)."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

TOLERANCE_SECONDS: Final = 300
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the scheme's prefix, no secret
SIGNATURES_MAX: Final = 20


class NotFromQuill(Exception):
    """Do not act on it; answer 400. The text says which check failed and nothing about the secret."""


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: datetime) -> str:
    """Check the signature of a webhook; returns its ``webhook-id``, which every repeat of it has too.

    Args:
        secrets: as they were shown, ``whsec_…``; two while one is being replaced.
        headers: of the request, in any case.
        body: the bytes as they came, before any parsing.
        now: the present instant; a webhook signed more than five minutes before or after it is refused.

    Raises:
        NotFromQuill: a header is missing, it is too old or too new, or no signature fits.
        ValueError: a secret is not one.
    """
    keys = [_key(secret) for secret in secrets]
    given = {name.lower(): value for name, value in headers.items()}
    try:
        webhook_id, timestamp = given["webhook-id"], given["webhook-timestamp"]
        signatures = given["webhook-signature"].split(" ")[:SIGNATURES_MAX]
    except KeyError as missing:
        raise NotFromQuill(f"the header {missing.args[0]} is missing") from missing
    if not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > 12:  # noqa: PLR2004 - seconds since 1970
        raise NotFromQuill("webhook-timestamp is not a number of seconds")
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
        raise NotFromQuill("webhook-timestamp lies more than five minutes from now")
    signed = f"{webhook_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    expected = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()) for key in keys]
    fits = False
    for signature in signatures:
        version, _, encoded = signature.partition(",")
        for each in expected:
            fits |= version == "v1" and hmac.compare_digest(encoded.encode("utf-8", "surrogateescape"), each)
    if not fits:
        raise NotFromQuill("no signature fits")
    return webhook_id


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a webhook secret looks like whsec_ and base64") from error
    if not key:
        raise ValueError("a webhook secret must not be empty")
    return key
