"""Secrets at rest and in transit: AES-256-GCM with a key id, so that keys can be rotated without a gap."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
_VERSION = "v1"


class InvalidSealingKeys(ValueError):
    """The configured keys cannot be used; the text says which and why."""


class CannotOpen(ValueError):
    """Sealed by a key we do not hold, for another context, or altered."""


@dataclass(frozen=True, slots=True, repr=False)
class Sealer:
    """Seals with the first key, opens with any. ``context`` binds a secret to what it belongs to."""

    keys: Mapping[str, bytes]
    sealing_key_id: str

    @classmethod
    def parse(cls, configured: str) -> "Sealer":
        """Read ``<id>:<base64url of 32 bytes>[,…]``.

        Raises:
            InvalidSealingKeys: naming the entry.
        """
        keys: dict[str, bytes] = {}
        for entry in filter(None, (part.strip() for part in configured.split(","))):
            key_id, _, encoded = entry.partition(":")
            try:
                key = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            except ValueError as error:
                raise InvalidSealingKeys(f"sealing key {key_id!r}: not base64url") from error
            if not key_id or "." in key_id or len(key) != KEY_BYTES:
                raise InvalidSealingKeys(f"sealing key {key_id!r}: needs an id without dots and {KEY_BYTES} bytes")
            keys[key_id] = key
        if not keys:
            raise InvalidSealingKeys("no sealing key: set QUILL_SEALING_KEYS to <id>:<base64url of 32 random bytes>")
        return cls(keys, next(iter(keys)))

    def seal(self, secret: bytes, *, context: str) -> str:
        """An opaque ASCII string that only `open` with the same context turns back."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self.keys[self.sealing_key_id]).encrypt(nonce, secret, context.encode())
        return f"{_VERSION}.{self.sealing_key_id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *, context: str) -> bytes:
        """The secret inside.

        Raises:
            CannotOpen: without saying more than that.
        """
        version, _, rest = sealed.partition(".")
        key_id, _, encoded = rest.partition(".")
        if version != _VERSION or key_id not in self.keys:
            raise CannotOpen(f"sealed with unknown key {key_id!r}")
        try:
            raw = base64.urlsafe_b64decode(encoded)
            return AESGCM(self.keys[key_id]).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], context.encode())
        except (ValueError, InvalidTag) as error:
            raise CannotOpen("altered, or sealed for another context") from error
