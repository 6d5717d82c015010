"""Who may ask about which organization (L18)."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from quill_runtime import auth
from quill_runtime.auth import ApiTokens, Forbidden, Key, Keyring
from quill_runtime.clock import Clock

from quill_quota_limiter.domain.quota_answer import OrganizationStanding

LICENSE_AUDIENCE = "posthog:license-key"
SCOPES = ("operator", "service")
VERIFIED_MAX = 10_000
UNLICENSED_MAX = 1_000
"""Headers, of which one token can make many by spaces."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody known. A license's caller sees the one organization its token names, if that is the license's."""

    license_id: str | None = None
    organization_id: str | None = None

    def check_names(self, organization_id: str, *, attr: str) -> None:
        """Refuse an organization that the token does not name, before anything is looked up.

        Raises:
            Forbidden: naming ``attr``.
        """
        if self.license_id is not None and organization_id != self.organization_id:
            raise _not_yours(attr)

    def check_owns(self, standing: OrganizationStanding | None, *, attr: str) -> None:
        """Refuse an organization that belongs to another license, or to none we know of.

        Raises:
            Forbidden: naming ``attr``; the same answer for a foreign and for an unknown organization.
        """
        if self.license_id is not None and (standing is None or standing.license_id != self.license_id):
            raise _not_yours(attr)


UNLICENSED: Final = Caller()
"""A service or operator, who may ask about everybody."""


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was good, until when it may be, and the very key that said so."""

    caller: Caller
    good_until: float
    key: Key


@dataclass(frozen=True, slots=True)
class Gate:
    """Turns an Authorization header into a caller.

    A license's token that was verified is remembered by its exact text until it expires, at most `VERIFIED_MAX` of
    them. The key is compared each time, so that a license that is revoked or whose key is replaced takes its tokens
    along at once. The header of a service or operator is remembered too: its token is good while the process lives.
    """

    tokens: ApiTokens
    keyring: Keyring
    clock: Clock
    _verified: dict[str, _Verified] = field(default_factory=dict, repr=False)
    _unlicensed: set[str] = field(default_factory=set, repr=False)

    def admit(self, authorization: str | None) -> Caller:
        """The caller behind a license token, or behind a service's or operator's static one.

        Raises:
            Unauthorized: neither.
            Forbidden: a static token of another scope.
        """
        if authorization in self._unlicensed:
            return UNLICENSED
        token = auth.bearer(authorization)
        if not auth.looks_signed(token):
            self.tokens.require(authorization, *SCOPES)
            if authorization is not None and len(self._unlicensed) < UNLICENSED_MAX:
                self._unlicensed.add(authorization)
            return UNLICENSED
        now = self.clock.now()
        known = self._verified.get(token)
        if known is not None and self._is_still_good(known, now):
            return known.caller
        signed = auth.verify_signed(token, keyring=self.keyring, audience=LICENSE_AUDIENCE, key_claim="id", now=now)
        organization_id = signed.claims.get("organization_id")
        if not isinstance(organization_id, str):
            raise Forbidden("permission_denied", "the token names no organization_id")
        caller = Caller(signed.key_id, organization_id)
        self._remember(token, caller, good_until=signed.good_until)
        return caller

    def _is_still_good(self, known: _Verified, now: datetime) -> bool:
        key = known.key
        return (
            self.keyring.find(key.key_id) is key
            and now.timestamp() < known.good_until
            and (key.expires_at is None or now < key.expires_at)
        )

    def _remember(self, token: str, caller: Caller, *, good_until: float) -> None:
        assert caller.license_id is not None
        key = self.keyring.find(caller.license_id)
        assert key is not None, "a token was verified with it in this very call"
        if len(self._verified) >= VERIFIED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified.pop(token, None)
        self._verified[token] = _Verified(caller, good_until, key)

    def admit_operator(self, authorization: str | None) -> None:
        """Let operators in and nobody else.

        Raises:
            Unauthorized | Forbidden: not an operator's token.
        """
        self.tokens.require(authorization, "operator")


def _not_yours(attr: str) -> Forbidden:
    return Forbidden("permission_denied", "this token cannot ask about this organization", attr=attr)
