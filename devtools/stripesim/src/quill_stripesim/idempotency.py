"""Idempotency keys: the first executed result is replayed, whatever it was, for a day of simulated time.

Nothing is stored when validation refuses a request or another with the same key is still running: those may be retried.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

KEPT_SECONDS = 86_400
MAX_KEY_LENGTH = 255
_KIND = "_idempotent_result"


@dataclass(frozen=True, slots=True)
class Result:
    """An executed request's answer."""

    status: int
    body: Resource


class IdempotencyKeys:
    """The results remembered by key, and the keys in use this moment."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running: set[str] = set()

    def find(self, key: str, fingerprint: str, *, now: int) -> Result | None:
        """Returns what a key answered before.

        Raises:
            StripeError: 400 `idempotency_error` when it came with another request or is longer than 255 characters; 409
                when its first request is still running.
        """
        if len(key) > MAX_KEY_LENGTH:
            raise StripeError(f"Idempotency keys can be at most {MAX_KEY_LENGTH} characters.", kind="idempotency_error")
        if key in self._running:
            raise StripeError(
                f"There is currently another in-progress request using this Idempotent Key: {key}",
                status=409,
                kind="idempotency_error",
                code="idempotency_key_in_use",
            )
        stored = self._world.get(_KIND, key)
        if stored is None or now - stored["created"] >= KEPT_SECONDS:
            return None
        if stored["fingerprint"] != fingerprint:
            raise StripeError(
                "Keys for idempotent requests can only be used with the same parameters they were first used with.",
                kind="idempotency_error",
            )
        return Result(status=stored["status"], body=stored["body"])

    def hold(self, key: str) -> None:
        """Marks a key as running."""
        self._running.add(key)

    def release(self, key: str) -> None:
        """Marks a key as no longer running."""
        self._running.discard(key)

    def remember(self, key: str, fingerprint: str, result: Result, *, now: int) -> None:
        """Stores a result under its key, to be committed together with what the request changed."""
        if self._world.get(_KIND, key) is not None:
            self._world.remove(_KIND, key)
        self._world.put(
            {
                "id": key,
                "object": _KIND,
                "created": now,
                "fingerprint": fingerprint,
                "status": result.status,
                "body": result.body,
            }
        )

    def prune(self, *, now: int) -> None:
        """Forgets results older than a day."""
        for stored in self._world.all(_KIND):
            if now - stored["created"] >= KEPT_SECONDS:
                self._world.remove(_KIND, stored["id"])


def fingerprint_of(method: str, path: str, received: dict[str, Any]) -> str:
    """Returns what two requests must share to be the same request."""
    text = json.dumps([method, path, received], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
