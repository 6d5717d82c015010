"""Who may call. Every route depends on exactly one of these policies; a test walks the routes and finds one without."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header
from pydantic import StringConstraints, TypeAdapter, ValidationError
from quill_contracts.identifiers import OrganizationId
from quill_runtime.auth import (
    ApiTokens,
    Forbidden,
    Keyring,
    SignedCaller,
    Unauthorized,
    bearer,
    looks_signed,
    verify_signed,
    wait_for_key,
)
from quill_runtime.clock import Clock

from quill_subscriptions.usecases.registration import Tenant

AUDIENCE = "posthog:license-key"
KEY_CLAIM = "id"
OPERATOR = "operator"
MEMBER = "member"
NAME_LENGTH_MAX = 200

_ORGANIZATION = TypeAdapter(OrganizationId)
_NAME = TypeAdapter(Annotated[str, StringConstraints(max_length=NAME_LENGTH_MAX)])

Authorization = Annotated[str | None, Header()]


@dataclass(frozen=True, slots=True)
class LicenseCaller:
    """An organization that speaks through its license, and the role of the person behind it, if any is named."""

    tenant: Tenant
    role: str | None

    def require_billing_role(self) -> None:
        """Members may look and not change. System calls name no role, so a missing one is no refusal.

        Raises:
            Forbidden: the person behind the call is a plain member.
        """
        if self.role == MEMBER:
            raise Forbidden("permission_denied", "changing billing needs the role administrator or owner")


@dataclass(frozen=True, slots=True)
class Operator:
    """A person or tool with an operator's token."""

    actor: str


@dataclass(frozen=True, slots=True)
class Access:
    """The policies, bound to the keys and tokens of this process."""

    keyring: Keyring
    tokens: ApiTokens
    clock: Clock

    async def anyone(self) -> None:
        """Public: what it shows is on the price page."""

    async def license_caller(self, authorization: Authorization = None) -> LicenseCaller:
        """A license's JWT, naming the one organization it speaks for (L18).

        Raises:
            Unauthorized: forged, expired, for another audience, signed otherwise, of a revoked license, or none.
            KeysNotRead: too early to tell.
        """
        token = bearer(authorization)
        await wait_for_key(token, keyring=self.keyring, key_claim=KEY_CLAIM)
        signed = verify_signed(
            token,
            keyring=self.keyring,
            audience=AUDIENCE,
            key_claim=KEY_CLAIM,
            now=self.clock.now(),
        )
        return LicenseCaller(tenant=_tenant(signed), role=_text(signed.claims.get("organization_role")))

    async def operator(self, authorization: Authorization = None) -> Operator:
        """An operator's static token.

        Raises:
            Unauthorized: the token is not known.
            Forbidden: it is another service's.
        """
        return Operator(actor=f"operator:{self.tokens.require(authorization, OPERATOR).name}")

    async def license_or_operator(self, authorization: Authorization = None) -> LicenseCaller | Operator:
        """Either of the two; a JWT is told from a static token by its form.

        Raises:
            Unauthorized: neither is good.
        """
        if looks_signed(bearer(authorization)):
            return await self.license_caller(authorization)
        return await self.operator(authorization)

    @property
    def policies(self) -> tuple[Any, ...]:
        """Every policy a route may declare."""
        return (self.anyone, self.license_caller, self.operator, self.license_or_operator)


def _tenant(signed: SignedCaller) -> Tenant:
    try:
        organization_id = _ORGANIZATION.validate_python(signed.claims.get("organization_id"), strict=True)
    except ValidationError as error:
        raise Unauthorized("authentication_failed", "the token must name an organization_id") from error
    distinct_id = _text(signed.claims.get("distinct_id"))
    return Tenant(
        organization_id=organization_id,
        organization_name=_text(signed.claims.get("organization_name")),
        license_id=signed.key_id,
        license_type=signed.attributes["type"],
        actor=f"license:{signed.key_id}" if distinct_id is None else f"user:{distinct_id}",
    )


def _text(claim: object) -> str | None:
    """A text claim, cut to a sane length; anything else counts as not there, as does one that cannot be stored."""
    return claim[:NAME_LENGTH_MAX] if isinstance(claim, str) and claim and "\x00" not in claim else None
