"""HTTP in: public signup, and what operators may see and do."""

import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Annotated, TypeVar

from fastapi import APIRouter, Header, Query, Request, Response
from quill_contracts.identifiers import Instant, LicenseId
from quill_runtime.auth import ApiTokens, Forbidden, TokenCaller
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_licensing.domain.license import CLOUD, LicenseStatus, LicenseType, NoSuchLicense
from quill_licensing.domain.license_key import ID_BYTES, SECRET_BYTES, LicenseKey
from quill_licensing.domain.signup_pace import Pace, TooManySignups
from quill_licensing.ports import PAGE_MAX, Claim, ClaimConflict, LicenseFilter, LicenseStore, SecretSealer, SourceTaken
from quill_licensing.usecases import (
    RepeatTooLate,
    admit_signup,
    issue_license,
    list_licenses,
    revoke_license,
    show_license,
)
from quill_licensing.wire import (
    IssuedAnswer,
    LicenseAnswer,
    LicensePage,
    LicenseStoryAnswer,
    RevokeBody,
    SignupBody,
    to_wire_issued,
    to_wire_license,
    to_wire_story,
)

OPERATOR_SCOPE = "operator"
PUBLIC = "public"

IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=16, max_length=200, pattern=r"^[\x21-\x7e]+$")
]
Authorization = Annotated[str | None, Header()]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SignupLimits:
    """How strangers are held back: per client address, and per e-mail so that nobody's inbox is flooded."""

    per_address: Pace
    per_email: Pace
    trusted_hops: int

    def paces(self, *, address: str, email: str) -> dict[str, Pace]:
        """The buckets one signup draws from."""
        return {f"address:{address}": self.per_address, f"email:{email.lower()}": self.per_email}


def router(
    *, store: LicenseStore, sealer: SecretSealer, tokens: ApiTokens, limits: SignupLimits, clock: Clock
) -> APIRouter:
    """``/v1/licenses``: anybody may sign up; everything else needs a token with the scope ``operator``."""
    routes = APIRouter(prefix="/v1/licenses", tags=["licenses"])

    @routes.post("", status_code=201)
    async def sign_up(
        body: SignupBody,
        request: Request,
        response: Response,
        authorization: Authorization = None,
        idempotency_key: IdempotencyKey = None,
    ) -> IssuedAnswer:
        now = clock.now()
        operator = tokens.require(authorization, OPERATOR_SCOPE) if authorization is not None else None
        if operator is None:
            if body.type == CLOUD:
                raise Forbidden(
                    "operator_needed",
                    "a cloud license stands for a whole region; only an operator issues one",
                    attr="type",
                )
            address = client_address(request, trusted_hops=limits.trusted_hops)
            await _answered(admit_signup(limits.paces(address=address, email=body.email), store=store, now=now))
        claimant = operator.name if operator else PUBLIC
        issued = await _answered(
            issue_license(
                body.to_signup(),
                key=fresh_license_key(),
                actor=_actor(operator) if operator else f"signup:{body.email}",
                claim=Claim(claimant, idempotency_key) if idempotency_key else None,
                store=store,
                sealer=sealer,
                now=now,
            )
        )
        response.headers["Cache-Control"] = "no-store"
        if issued.is_repeat:
            response.headers["Idempotent-Replayed"] = "true"
        return to_wire_issued(issued)

    @routes.get("")
    async def list_(  # noqa: PLR0917 - FastAPI reads query parameters by name
        authorization: Authorization = None,
        status: LicenseStatus | None = None,
        type: LicenseType | None = None,  # noqa: A002 - the query parameter's name
        email: Annotated[str | None, Query(max_length=254)] = None,
        after_id: Annotated[str, Query(max_length=100)] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
    ) -> LicensePage:
        tokens.require(authorization, OPERATOR_SCOPE)
        wanted = LicenseFilter(status=status, type=type, email=email)
        found = await list_licenses(wanted, after_id=after_id, limit=limit, store=store)
        return LicensePage(
            results=[to_wire_license(license_) for license_ in found],
            next_after_id=found[-1].license_id if len(found) == limit else None,
        )

    @routes.get("/{license_id}")
    async def show(
        license_id: LicenseId, authorization: Authorization = None, as_of: Instant | None = None
    ) -> LicenseStoryAnswer:
        tokens.require(authorization, OPERATOR_SCOPE)
        return to_wire_story(await _answered(show_license(license_id, as_of=as_of, store=store)))

    @routes.post("/{license_id}/revoke")
    async def revoke(license_id: LicenseId, body: RevokeBody, authorization: Authorization = None) -> LicenseAnswer:
        operator = tokens.require(authorization, OPERATOR_SCOPE)
        now: datetime = clock.now()
        return to_wire_license(
            await _answered(
                revoke_license(license_id, reason=body.reason, actor=_actor(operator), store=store, now=now)
            )
        )

    return routes


def fresh_license_key() -> LicenseKey:
    """A key from the system's randomness; the only place that draws any."""
    return LicenseKey.from_random(
        id_bytes=secrets.token_bytes(ID_BYTES), secret_bytes=secrets.token_bytes(SECRET_BYTES)
    )


def client_address(request: Request, *, trusted_hops: int) -> str:
    """Where a request came from, reading X-Forwarded-For only as far as our own proxies wrote it."""
    direct = request.client.host if request.client else "unknown"
    if trusted_hops == 0:
        return direct
    forwarded = [part.strip() for part in request.headers.get("x-forwarded-for", "").split(",") if part.strip()]
    return forwarded[-trusted_hops] if len(forwarded) >= trusted_hops else direct


def _actor(operator: TokenCaller) -> str:
    return f"operator:{operator.name}"


async def _answered(work: Awaitable[T]) -> T:
    """What a use case refuses, as a problem document."""
    try:
        return await work
    except NoSuchLicense as error:
        raise Problem(404, "not_found", str(error), attr="license_id") from error
    except SourceTaken as error:
        raise Problem(409, "source_taken", f"{error}; choose another or leave it out", attr="source") from error
    except ClaimConflict as error:
        raise Problem(
            409, "idempotency_key_reused", f"{error}; use a new key for a new signup", attr="Idempotency-Key"
        ) from error
    except RepeatTooLate as error:
        raise Problem(409, "idempotency_key_expired", str(error), attr="Idempotency-Key") from error
    except TooManySignups as error:
        raise Problem(429, "throttled", str(error), headers=_retry_after(error.retry_after)) from error


def _retry_after(wait: timedelta) -> dict[str, str]:
    headers: Mapping[str, str] = {"Retry-After": str(max(1, ceil(wait / timedelta(seconds=1))))}
    return dict(headers)
