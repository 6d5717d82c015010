"""Who is calling: a JWT signed with a key from the keyring, or a static bearer token of a service or operator.

The keyring holds the secrets of known keys (for Quill: licenses) and is filled from a compacted topic, so that every
service verifies locally. Claims are what the holder of the key says; what the key may touch is the service's decision.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import jwt

from quill_runtime.problems import Problem

ALGORITHM: Final = "HS256"
LIFETIME_MAX: Final = timedelta(minutes=15)
"""PostHog's tokens live 15 minutes and carry no id, so a stolen one is good for that long (and the leeway) at most."""
CLOCK_LEEWAY: Final = timedelta(seconds=120)
"""How far a sender's clock may differ from ours, in both directions; a token's instants are compared with this much
room. It is the one place where a token's clock meets ours."""
KEY_WAIT_SECONDS: Final = 1.0
"""How long a token waits for its key: a license that was just issued reaches us within a fraction of it."""
WAITING_MAX: Final = 200
"""Tokens that wait for their keys at once; strangers' tokens wait too."""
TOKEN_BYTES_MAX = 8_192
_UNKNOWN_KEY_SECRET = b"\x00" * 32


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A key that may sign tokens. ``attributes`` are facts about it that the issuer published."""

    key_id: str
    secret: bytes
    revoked: bool
    expires_at: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


class Keyring:
    """Known keys by id; the newest revision of each wins.

    ``is_read`` says whether all keys there are have been read. Before that an unknown key may be a good one, and one
    that looks good may have been revoked since. ``is_current`` asks whether all keys published up to now are read.
    """

    def __init__(self, *, is_read: Callable[[], bool] = lambda: True) -> None:
        self._keys: dict[str, tuple[int, Key]] = {}
        self._arrivals: dict[asyncio.Future[None], str] = {}
        self.is_read = is_read
        self.is_current: Callable[[], Awaitable[bool]] | None = None

    def put(self, key: Key, *, revision: int) -> None:
        known = self._keys.get(key.key_id)
        if known is None or revision > known[0]:
            self._keys[key.key_id] = (revision, key)
        for arrival, key_id in self._arrivals.items():
            if key_id == key.key_id and not arrival.done():
                arrival.set_result(None)

    def find(self, key_id: str) -> Key | None:
        known = self._keys.get(key_id)
        return known[1] if known else None

    @property
    def waiting(self) -> int:
        """How many tokens wait for their keys."""
        return len(self._arrivals)

    async def wait_for(self, key_id: str) -> None:
        """Return once the key is known, or is known not to have been published.

        Raises:
            KeysNotRead: it cannot be told whether there is such a key, or too many tokens wait for theirs.
        """
        if key_id in self._keys or self.is_current is None:
            return
        if len(self._arrivals) >= WAITING_MAX:
            raise KeysNotRead
        arrival = asyncio.get_running_loop().create_future()
        self._arrivals[arrival] = key_id
        try:
            async with asyncio.timeout(KEY_WAIT_SECONDS):
                await arrival
        except TimeoutError:
            if not await self.is_current():
                raise KeysNotRead from None
        finally:
            del self._arrivals[arrival]

    def __len__(self) -> int:
        return len(self._keys)


@dataclass(frozen=True, slots=True)
class SignedCaller:
    """Somebody who holds a key: its id and attributes, what the token claims, and when the token stops being good.

    ``good_until`` is in epoch seconds and includes the leeway for the sender's clock.
    """

    key_id: str
    attributes: Mapping[str, str]
    claims: Mapping[str, Any]
    good_until: float


@dataclass(frozen=True, slots=True)
class TokenCaller:
    """A service or operator with a static token."""

    name: str
    scope: str


class Unauthorized(Problem):
    """The caller is not known or its token is not good; always with a JSON body."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(401, code, detail, headers={"WWW-Authenticate": "Bearer"})


class KeysNotRead(Problem):
    """The service has just started and cannot tell yet if a token is good. Never 401: clients take that as final."""

    def __init__(self) -> None:
        super().__init__(
            503, "starting", "signing keys are still being read; try again shortly", headers={"Retry-After": "1"}
        )


class Forbidden(Problem):
    """The caller is known and may not do this."""

    def __init__(self, code: str, detail: str, *, attr: str | None = None) -> None:
        super().__init__(403, code, detail, attr=attr)


def bearer(authorization: str | None) -> str:
    """The token of an Authorization header.

    Raises:
        Unauthorized: none there, another scheme, or absurdly long.
    """
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("not_authenticated", "send an Authorization header: Bearer <token>")
    if len(token) > TOKEN_BYTES_MAX:
        raise Unauthorized("authentication_failed", "the token is too long")
    return token


async def wait_for_key(token: str, *, keyring: Keyring, key_claim: str) -> None:
    """Let the key of a token arrive that names one not known yet; then `verify_signed` judges the token.

    A license works from the moment its key was handed out, and the key reaches each service a moment later. Never call
    this inside a transaction: a stranger's token waits as well.

    Raises:
        KeysNotRead: it cannot be told whether there is such a key; the caller shall send again.
    """
    if not keyring.is_read():
        raise KeysNotRead
    try:
        key_id = jwt.decode(token, options={"verify_signature": False}, algorithms=[ALGORITHM]).get(key_claim)
    except (jwt.PyJWTError, ValueError):
        return
    if isinstance(key_id, str):
        await keyring.wait_for(key_id)


def verify_signed(token: str, *, keyring: Keyring, audience: str, key_claim: str, now: datetime) -> SignedCaller:
    """Check a JWT: algorithm fixed, key chosen by the claimed id and verified with that key alone (L18).

    Raises:
        Unauthorized: the same answer for an unknown key and a wrong signature.
        KeysNotRead: too early to tell.
    """
    if not keyring.is_read():
        raise KeysNotRead
    try:
        unverified = jwt.decode(token, options={"verify_signature": False}, algorithms=[ALGORITHM])
        key_id = unverified.get(key_claim)
    except (jwt.PyJWTError, ValueError) as error:
        raise Unauthorized("authentication_failed", "the token cannot be read") from error
    key = keyring.find(key_id) if isinstance(key_id, str) else None
    try:
        claims = jwt.decode(
            token,
            key=key.secret if key else _UNKNOWN_KEY_SECRET,
            algorithms=[ALGORITHM],
            audience=audience,
            options={
                "require": ["exp", "aud", key_claim],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.PyJWTError, ValueError) as error:
        raise Unauthorized("authentication_failed", "the token's signature, audience or claims are not good") from error
    if key is None:
        raise Unauthorized("authentication_failed", "the token's signature, audience or claims are not good")
    good_until = _check_lifetime(claims, now)
    if key.revoked:
        raise Unauthorized("key_revoked", "this key has been revoked")
    if key.expires_at is not None and now >= key.expires_at:
        raise Unauthorized("key_expired", f"this key expired at {key.expires_at.isoformat()}")
    return SignedCaller(key.key_id, key.attributes, claims, good_until)


def _check_lifetime(claims: Mapping[str, Any], now: datetime) -> float:
    """Compare ``exp``, ``nbf`` and ``iat`` with our clock, which may differ from the sender's by `CLOCK_LEEWAY`.

    Returns:
        The instant from which on the token is refused, in epoch seconds.
    """
    leeway, present = CLOCK_LEEWAY.total_seconds(), now.timestamp()
    expires = _instant_claim(claims, "exp")
    if present - expires >= leeway:
        raise Unauthorized(
            "token_expired",
            f"exp: the token expired {present - expires:.0f} s ago by our clock; sign a new one, or set the sender's"
            f" clock if it is more than {leeway:.0f} s slow",
        )
    if expires - present > LIFETIME_MAX.total_seconds() + leeway:
        raise _clock_is_fast("exp", f"is more than {LIFETIME_MAX.total_seconds() / 60:.0f} minutes ahead")
    for claim in ("nbf", "iat"):
        if claim in claims and (ahead := _instant_claim(claims, claim) - present) > leeway:
            raise _clock_is_fast(claim, f"is {ahead:.0f} s ahead")
    return expires + leeway


def _instant_claim(claims: Mapping[str, Any], claim: str) -> float:
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        raise Unauthorized("authentication_failed", f"{claim} must be a number of seconds")
    return value


def _clock_is_fast(claim: str, how: str) -> Unauthorized:
    leeway = f"{CLOCK_LEEWAY.total_seconds():.0f} s"
    return Unauthorized(
        "authentication_failed",
        f"{claim}: {how} of our clock, and {leeway} of difference are allowed; set the sender's clock",
    )


class InvalidApiTokens(ValueError):
    """QUILL_API_TOKENS cannot be read; the text names the entry."""


@dataclass(frozen=True, slots=True, repr=False)
class ApiTokens:
    """Static tokens, kept as SHA-256: they are long and random, so a slow hash adds nothing."""

    callers: tuple[tuple[bytes, TokenCaller], ...]

    @classmethod
    def parse(cls, configured: str) -> "ApiTokens":
        """Read ``<name>:<scope>:<sha256 hex>[,…]``.

        Raises:
            InvalidApiTokens: naming the entry.
        """
        callers: list[tuple[bytes, TokenCaller]] = []
        for entry in filter(None, (part.strip() for part in configured.split(","))):
            parts = entry.split(":")
            try:
                name, scope, digest = parts
                raw = bytes.fromhex(digest)
            except ValueError as error:
                raise InvalidApiTokens(f"{parts[0]!r}: must be <name>:<scope>:<sha256 hex>") from error
            if len(raw) != hashlib.sha256().digest_size or not name or not scope:
                raise InvalidApiTokens(f"{name!r}: must be <name>:<scope>:<sha256 hex>")
            callers.append((raw, TokenCaller(name, scope)))
        return cls(tuple(callers))

    def verify(self, token: str) -> TokenCaller | None:
        """The caller with this token; compares against every entry, so that time tells nothing."""
        digest = hashlib.sha256(token.encode()).digest()
        found: TokenCaller | None = None
        for expected, caller in self.callers:
            if hmac.compare_digest(digest, expected):
                found = caller
        return found

    def require(self, authorization: str | None, *scopes: str) -> TokenCaller:
        """The caller behind a header, if it has one of the scopes.

        Raises:
            Unauthorized: unknown token.
            Forbidden: known, but without the scope.
        """
        caller = self.verify(bearer(authorization))
        if caller is None:
            raise Unauthorized("authentication_failed", "the token is not known")
        if scopes and caller.scope not in scopes:
            raise Forbidden(
                "permission_denied", f"needs the scope {' or '.join(scopes)}; this token has {caller.scope}"
            )
        return caller


def looks_signed(token: str) -> bool:
    """A JWT has three parts; a static token has no dots."""
    return token.count(".") == 2  # noqa: PLR2004
