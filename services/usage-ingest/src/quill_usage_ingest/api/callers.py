"""Who may touch which organization (L18)."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import Header
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
from quill_runtime.problems import Problem

from quill_usage_ingest.domain.organization import Organization

LICENSE_AUDIENCE: Final = "posthog:license-key"
KEY_CLAIM: Final = "id"
Authorization = Annotated[str | None, Header()]


def license_caller(authorization: str | None, keyring: Keyring, now: datetime) -> SignedCaller:
    """The license behind a token, and the organization it acts for.

    Raises:
        Unauthorized: the token is not good or names no organization.
    """
    caller = verify_signed(
        bearer(authorization), keyring=keyring, audience=LICENSE_AUDIENCE, key_claim=KEY_CLAIM, now=now
    )
    if not isinstance(caller.claims.get("organization_id"), str):
        raise Unauthorized("authentication_failed", "the token names no organization_id")
    return caller


async def arriving_license(authorization: str | None, keyring: Keyring, now: datetime) -> SignedCaller:
    """As `license_caller`, and lets the key of a license that was just issued arrive. Not inside a transaction.

    Raises:
        Unauthorized: the token is not good or names no organization.
        KeysNotRead: too early to tell; the caller shall send again.
    """
    await wait_for_key(bearer(authorization), keyring=keyring, key_claim=KEY_CLAIM)
    return license_caller(authorization, keyring, now)


def not_yours() -> Forbidden:
    """One answer for unknown, foreign and mismatched organizations, so that nobody learns which exist (L18)."""
    return Forbidden(
        "permission_denied", "organization_id: this license may not act for this organization", attr="organization_id"
    )


def not_known() -> Problem:
    """For callers who may read every organization."""
    return Problem(404, "not_found", "organization_id: not known", attr="organization_id")


def license_sources(organization: Organization, keyring: Keyring) -> frozenset[str]:
    """The names under which its licenses report, of those licenses that are known here."""
    keys = [keyring.find(each) for each in (organization.license_id, *organization.customer.further_license_ids)]
    return frozenset(source for key in keys if key is not None and (source := key.attributes.get("source")))


def require_reader(
    organization: Organization | None,
    organization_id: str,
    *,
    authorization: str | None,
    keyring: Keyring,
    tokens: ApiTokens,
    now: datetime,
) -> Organization:
    """The organization, if the caller may read it: services and operators any, a license the one its token names.

    Raises:
        Unauthorized: the token is not good.
        Forbidden: a license and not its organization, or a static token without the scope.
        Problem: 404 for services and operators.
    """
    if looks_signed(bearer(authorization)):
        caller = license_caller(authorization, keyring, now)
        if organization is None or (caller.key_id, caller.claims["organization_id"]) != (
            organization.license_id,
            organization_id,
        ):
            raise not_yours()
        return organization
    tokens.require(authorization, "operator", "service")
    if organization is None:
        raise not_known()
    return organization
