"""Who may ask about which organization (L18)."""

from dataclasses import dataclass

from quill_runtime import auth
from quill_runtime.auth import ApiTokens, Forbidden, Keyring
from quill_runtime.clock import Clock

from quill_quota_limiter.domain.quota_answer import OrganizationStanding

LICENSE_AUDIENCE = "posthog:license-key"
SCOPES = ("operator", "service")


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


@dataclass(frozen=True, slots=True)
class Gate:
    """Turns an Authorization header into a caller."""

    tokens: ApiTokens
    keyring: Keyring
    clock: Clock

    def admit(self, authorization: str | None) -> Caller:
        """The caller behind a license token, or behind a service's or operator's static one.

        Raises:
            Unauthorized: neither.
            Forbidden: a static token of another scope.
        """
        token = auth.bearer(authorization)
        if not auth.looks_signed(token):
            self.tokens.require(authorization, *SCOPES)
            return Caller()
        signed = auth.verify_signed(
            token, keyring=self.keyring, audience=LICENSE_AUDIENCE, key_claim="id", now=self.clock.now()
        )
        organization_id = signed.claims.get("organization_id")
        if not isinstance(organization_id, str):
            raise Forbidden("permission_denied", "the token names no organization_id")
        return Caller(signed.key_id, organization_id)

    def admit_operator(self, authorization: str | None) -> None:
        """Let operators in and nobody else.

        Raises:
            Unauthorized | Forbidden: not an operator's token.
        """
        self.tokens.require(authorization, "operator")


def _not_yours(attr: str) -> Forbidden:
    return Forbidden("permission_denied", "this token cannot ask about this organization", attr=attr)
