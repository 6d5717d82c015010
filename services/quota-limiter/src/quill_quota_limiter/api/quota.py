"""Quota checks, one or many: read the board once, answer, encode. No framework model on this path.

`QuotaDesk` answers in bytes and knows nothing of FastAPI, so that a raw ASGI front can call it as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Caller, Gate
from quill_quota_limiter.domain.quota_answer import (
    OrganizationStanding,
    QuotaAnswer,
    UnknownOrganizationPolicy,
    answer_check,
)
from quill_quota_limiter.ports import AnswerBoard, LimitsStore
from quill_quota_limiter.usecases.answers import read_standings

CHECKS_MAX: Final = 10_000
NAME_LENGTH_MAX: Final = 200


class _Check(msgspec.Struct, frozen=True, gc=False):
    organization_id: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
    usage_key: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH_MAX)]


class _Checks(msgspec.Struct, frozen=True):
    checks: list[_Check]


class _Answers(msgspec.Struct, frozen=True):
    answers: list[QuotaAnswer]


_decode_checks = msgspec.json.Decoder(_Checks).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class QuotaDesk:
    """Answers quota checks in encoded form."""

    store: LimitsStore
    board: AnswerBoard
    clock: Clock
    unknown: UnknownOrganizationPolicy

    async def answer_one(self, caller: Caller, organization_id: str, usage_key: str) -> bytes:
        """One answer as JSON.

        Raises:
            Forbidden: the caller may not ask about this organization.
            Problem: 404 when the organization is known and has no such meter.
        """
        caller.check_names(organization_id, attr="organization_id")
        standing = (await self._standings([organization_id])).get(organization_id)
        caller.check_owns(standing, attr="organization_id")
        if standing is not None and usage_key not in standing.meters:
            known = ", ".join(sorted(standing.meters)) or "none"
            raise Problem(
                404,
                "unknown_usage_key",
                f"this organization has no meter {usage_key!r}; known: {known}",
                attr="usage_key",
            )
        return _encode(answer_check(organization_id, usage_key, standing, unknown=self.unknown, now=self.clock.now()))

    async def answer_many(self, caller: Caller, body: bytes) -> bytes:
        """``{"answers": […]}`` in the order of the checks.

        A meter its organization does not have is answered ``known: false``: one wrong key must not cost the other
        9,999 callers of a batch their answer.

        Raises:
            Problem: 400 naming the field, also above 10,000 checks.
            Forbidden: the caller may not ask about one of the organizations.
        """
        checks = _read_checks(body)
        for number, check in enumerate(checks):
            caller.check_names(check.organization_id, attr=f"checks__{number}__organization_id")
        standings = await self._standings(list({check.organization_id for check in checks}))
        if caller.license_id is not None and checks:
            caller.check_owns(standings.get(checks[0].organization_id), attr="checks__0__organization_id")
        now = self.clock.now()
        return _encode(
            _Answers(
                [
                    answer_check(
                        check.organization_id,
                        check.usage_key,
                        standings.get(check.organization_id),
                        unknown=self.unknown,
                        now=now,
                    )
                    for check in checks
                ]
            )
        )

    async def _standings(self, organization_ids: Sequence[str]) -> Mapping[str, OrganizationStanding]:
        return await read_standings(organization_ids, store=self.store, board=self.board)


def router(desk: QuotaDesk, gate: Gate) -> APIRouter:
    """``GET /v1/quota/{organization_id}/{usage_key}`` and ``POST /v1/quota``."""
    routes = APIRouter(tags=["quota"])

    @routes.get("/v1/quota/{organization_id}/{usage_key}", response_model=None)
    async def check_quota(
        organization_id: str, usage_key: str, authorization: Annotated[str | None, Header()] = None
    ) -> Response:
        """May this organization use this meter now?"""
        answer = await desk.answer_one(gate.admit(authorization), organization_id, usage_key)
        return Response(answer, media_type="application/json")

    @routes.post("/v1/quota", response_model=None)
    async def check_quotas(request: Request, authorization: Annotated[str | None, Header()] = None) -> Response:
        """Many checks in one request: ``{"checks": [{"organization_id", "usage_key"}, …]}``."""
        caller = gate.admit(authorization)
        return Response(await desk.answer_many(caller, await request.body()), media_type="application/json")

    return routes


def _read_checks(body: bytes) -> list[_Check]:
    try:
        checks = _decode_checks(body).checks
    except msgspec.ValidationError as error:
        raise Problem(400, "invalid_input", str(error), attr=_attribute(error)) from error
    except msgspec.DecodeError as error:
        raise Problem(400, "not_json", f"the body is not JSON: {error}") from error
    if len(checks) > CHECKS_MAX:
        raise Problem(
            400, "too_many_checks", f"at most {CHECKS_MAX:,} checks at once, not {len(checks):,}", attr="checks"
        )
    return checks


def _attribute(error: msgspec.ValidationError) -> str:
    """Msgspec ends its messages with a path such as ``$.checks[3].usage_key``."""
    _, _, path = str(error).partition("at `$")
    return path.rstrip("`").replace("[", "__").replace("]", "").replace(".", "__").strip("_") or "checks"
