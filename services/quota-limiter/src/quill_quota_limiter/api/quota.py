"""Quota checks, one or many: find standings, answer, encode. No framework model on this path.

`QuotaDesk` answers in bytes and knows nothing of FastAPI, so that the raw ASGI front (`quill_quota_limiter.api.front`)
calls it as it is. The routes here declare the same for the OpenAPI document, and answer with the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from prometheus_client import Counter
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Caller, Gate
from quill_quota_limiter.domain.quota_answer import (
    OrganizationStanding,
    QuotaAnswer,
    UnknownOrganizationPolicy,
    answer_check,
)
from quill_quota_limiter.ports import AnswerSource, Reading

CHECKS_MAX: Final = 10_000
NAME_LENGTH_MAX: Final = 200
ENCODED_MAX: Final = 50_000
"""Encoded answers kept for the next who asks the same; some 15 MB."""

CHECKS = Counter("quill_quota_checks", "Quota checks answered, by what they were answered from", ["source"])
_CHECKED: Final[Mapping[AnswerSource, Counter]] = {
    "mirror": CHECKS.labels("mirror"),
    "redis": CHECKS.labels("redis"),
    "store": CHECKS.labels("store"),
}

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
By = Literal["organization", "token"]


class _Check(msgspec.Struct, frozen=True, gc=False):
    usage_key: Name
    organization_id: Name | None = None
    token: Name | None = None


class _Checks(msgspec.Struct, frozen=True):
    checks: list[_Check]


class _PackedChecks(msgspec.Struct, frozen=True):
    usage_key: Name
    organization_ids: list[Name] | None = None
    tokens: list[Name] | None = None


class _OrganizationAnswers(msgspec.Struct, frozen=True):
    organization_id: str | None
    known: bool
    unknown_usage_keys: Literal["allowed", "denied"]
    revision: int | None
    answers: list[msgspec.Raw]


class _PackedAnswer(msgspec.Struct, frozen=True):
    limited: list[int]
    unknown: list[int]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer in bytes, what it was made from, and how old that was."""

    body: bytes
    source: AnswerSource
    age_ms: int


class Lookup(Protocol):
    """What `quill_quota_limiter.store.standing_lookup.StandingLookup` does."""

    async def read(self, organization_ids: Sequence[str], tokens: Sequence[str] = ()) -> Reading: ...


_decode_checks: Final = msgspec.json.Decoder(_Checks).decode
_decode_packed: Final = msgspec.json.Decoder(_PackedChecks).decode
_encode: Final = msgspec.json.Encoder().encode


@dataclass(slots=True)
class QuotaDesk:
    """Answers quota checks in encoded form."""

    lookup: Lookup
    clock: Clock
    unknown: UnknownOrganizationPolicy
    _encoded: dict[tuple[str, str], tuple[OrganizationStanding, datetime | None, bytes]] = field(default_factory=dict)

    async def answer_one(self, caller: Caller, name: str, usage_key: str, *, by: str = "organization") -> Answered:
        """One answer as JSON; ``name`` is an organization's id or one of its project tokens.

        Raises:
            Forbidden: the caller may not ask about this organization.
            Problem: 404 when the organization is known and has no such meter; 400 for another ``by``.
        """
        organization_id, reading = await self._find(caller, name, by)
        standing = reading.standings.get(organization_id) if organization_id is not None else None
        if standing is not None and usage_key not in standing.meters:
            known = ", ".join(sorted(standing.meters)) or "none"
            raise Problem(
                404,
                "unknown_usage_key",
                f"this organization has no meter {usage_key!r}; known: {known}",
                attr="usage_key",
            )
        body = self._encode_answer(organization_id, usage_key, standing, self.clock.now())
        return _answered(body, reading, checks=1)

    async def answer_organization(self, caller: Caller, name: str, *, by: str = "organization") -> Answered:
        """Every meter of one organization. Of an unknown one the answer says what the policy is and names none.

        Raises:
            Forbidden | Problem: as `answer_one`.
        """
        organization_id, reading = await self._find(caller, name, by)
        standing = reading.standings.get(organization_id) if organization_id is not None else None
        now = self.clock.now()
        answers = [
            msgspec.Raw(self._encode_answer(organization_id, usage_key, standing, now))
            for usage_key in (sorted(standing.meters) if standing else ())
        ]
        body = _encode(
            _OrganizationAnswers(
                organization_id=organization_id,
                known=standing is not None,
                unknown_usage_keys="allowed" if self.unknown == "allow" else "denied",
                revision=standing.revision if standing else None,
                answers=answers,
            )
        )
        return _answered(body, reading, checks=max(1, len(answers)))

    async def answer_many(self, caller: Caller, body: bytes) -> Answered:
        """``{"answers": […]}`` in the order of the checks.

        A meter its organization does not have is answered ``known: false``: one wrong key must not cost the other
        9,999 callers of a batch their answer.

        Raises:
            Problem: 400 naming the field, also above 10,000 checks.
            Forbidden: the caller may not ask about one of the organizations.
        """
        checks = _read_checks(body)
        if caller.license_id is not None:
            for number, check in enumerate(checks):
                if check.organization_id is not None:
                    caller.check_names(check.organization_id, attr=f"checks__{number}__organization_id")
        names = [check.organization_id for check in checks if check.organization_id is not None]
        tokens = [check.token for check in checks if check.token is not None]
        reading = await self.lookup.read(names, tokens)
        standings, owners = reading.standings, reading.owners
        if caller.license_id is not None:
            _check_batch(caller, checks, reading)
        now = self.clock.now()
        encode = self._encode_answer
        parts = []
        for check in checks:
            name = check.organization_id
            if name is None:
                name = owners.get(check.token)  # type: ignore[arg-type]
            parts.append(encode(name, check.usage_key, standings.get(name) if name is not None else None, now))
        return _answered(b'{"answers":[' + b",".join(parts) + b"]}", reading, checks=len(checks))

    async def answer_packed(self, caller: Caller, body: bytes) -> Answered:
        """``{"limited": […], "unknown": […]}``: places in the list of who may not use the meter, and of who is unknown.

        Under the policy ``deny`` who is unknown is in both.

        Raises:
            Problem: 400 naming the field, also above 10,000 names.
            Forbidden: the caller may not ask about one of the organizations.
        """
        asked = _read_packed(body)
        names = asked.organization_ids or []
        tokens = asked.tokens or []
        for number, name in enumerate(names if caller.license_id is not None else ()):
            caller.check_names(name, attr=f"organization_ids__{number}")
        reading = await self.lookup.read(names, tokens)
        if caller.license_id is not None:
            _check_packed(caller, names, tokens, reading)
        limited, unknown = self._pack(asked.usage_key, names, tokens, reading)
        return _answered(_encode(_PackedAnswer(limited, unknown)), reading, checks=len(names) + len(tokens))

    def _pack(
        self, usage_key: str, names: Sequence[str], tokens: Sequence[str], reading: Reading
    ) -> tuple[list[int], list[int]]:
        now, standings, owners = self.clock.now(), reading.standings, reading.owners
        organizations = [owners.get(token, "") for token in tokens] if tokens else names
        denies = self.unknown == "deny"
        if reading.limits is not None:
            # Most lists hold nobody unknown and few who are limited: two looks at sets instead of one per name.
            holders, ends = reading.limits.holders.get(usage_key, set()), reading.limits.limited.get(usage_key, {})
            unknown = (
                []
                if holders.issuperset(organizations)
                else [place for place, name in enumerate(organizations) if name not in holders]
            )
            limited = [place for place, name in enumerate(organizations) if name in ends and now < ends[name]]
        else:
            meters = [
                standing.meters.get(usage_key) if (standing := standings.get(name)) is not None else None
                for name in organizations
            ]
            unknown = [place for place, meter in enumerate(meters) if meter is None]
            limited = [
                place
                for place, meter in enumerate(meters)
                if meter is not None and meter.limited_until is not None and now < meter.limited_until
            ]
        return (sorted({*limited, *unknown}) if denies else limited), unknown

    async def _find(self, caller: Caller, name: str, by: str) -> tuple[str | None, Reading]:
        if by == "organization":
            caller.check_names(name, attr="organization_id")
            reading = await self.lookup.read([name])
            if caller.license_id is not None:
                caller.check_owns(reading.standings.get(name), attr="organization_id")
            return name, reading
        if by != "token":
            raise Problem(400, "invalid_input", f"by: must be organization or token, not {by!r}", attr="by")
        reading = await self.lookup.read([], [name])
        owner = reading.owners.get(name)
        if caller.license_id is not None:
            caller.check_names(owner or "", attr="token")
            caller.check_owns(reading.standings.get(owner or ""), attr="token")
        return owner, reading

    def _encode_answer(
        self, organization_id: str | None, usage_key: str, standing: OrganizationStanding | None, now: datetime
    ) -> bytes:
        if standing is None or organization_id is None:
            return _encode(answer_check(organization_id, usage_key, standing, unknown=self.unknown, now=now))
        key = (organization_id, usage_key)
        kept = self._encoded.get(key)
        if kept is not None and kept[0] is standing and (kept[1] is None or now < kept[1]):
            return kept[2]
        answer: QuotaAnswer = answer_check(organization_id, usage_key, standing, unknown=self.unknown, now=now)
        encoded = _encode(answer)
        if len(self._encoded) >= ENCODED_MAX:
            self._encoded.clear()
        # A limit whose end has not come changes the answer when it comes; one that has passed changes it no more.
        self._encoded[key] = (standing, answer.limited_until, encoded)
        return encoded


def router(desk: QuotaDesk, gate: Gate) -> APIRouter:
    """``/v1/quota/…``."""
    routes = APIRouter(tags=["quota"])
    header = Annotated[str | None, Header()]
    by_name = Annotated[str, Query(json_schema_extra={"enum": ["organization", "token"]})]

    @routes.get("/v1/quota/{organization_id}/{usage_key}", response_model=None, responses=_document(QuotaAnswer))
    async def check_quota(
        organization_id: str, usage_key: str, by: by_name = "organization", authorization: header = None
    ) -> Response:
        """May this organization (``?by=token``: the one with this project token) use this meter now?"""
        return respond(await desk.answer_one(gate.admit(authorization), organization_id, usage_key, by=by))

    @routes.get("/v1/quota/{organization_id}", response_model=None, responses=_document(_OrganizationAnswers))
    async def check_organization(
        organization_id: str, by: by_name = "organization", authorization: header = None
    ) -> Response:
        """Which of its meters may this organization use now?"""
        return respond(await desk.answer_organization(gate.admit(authorization), organization_id, by=by))

    @routes.post("/v1/quota", response_model=None, openapi_extra=_body(_Checks))
    async def check_quotas(request: Request, authorization: header = None) -> Response:
        """Up to 10,000 checks: ``{"checks": [{"organization_id" or "token", "usage_key"}, …]}``."""
        return respond(await desk.answer_many(gate.admit(authorization), await request.body()))

    @routes.post(
        "/v1/quota/packed", response_model=None, openapi_extra=_body(_PackedChecks), responses=_document(_PackedAnswer)
    )
    async def check_packed(request: Request, authorization: header = None) -> Response:
        """One meter of up to 10,000 organizations or tokens; answers with the places of those that are limited."""
        return respond(await desk.answer_packed(gate.admit(authorization), await request.body()))

    return routes


def headers_of(answered: Answered) -> dict[str, str]:
    """What an answer says of its origin."""
    return {"quill-answer-source": answered.source, "quill-answer-age-ms": str(answered.age_ms)}


def respond(answered: Answered) -> Response:
    """The answer as a framework sends it."""
    return Response(answered.body, media_type="application/json", headers=headers_of(answered))


def _answered(body: bytes, reading: Reading, *, checks: int) -> Answered:
    _CHECKED[reading.source].inc(checks)
    return Answered(body, reading.source, reading.age_ms)


def _check_batch(caller: Caller, checks: Sequence[_Check], reading: Reading) -> None:
    for number, check in enumerate(checks):
        if check.token is not None:
            caller.check_names(reading.owners.get(check.token) or "", attr=f"checks__{number}__token")
    if checks:
        attr = "organization_id" if checks[0].token is None else "token"
        caller.check_owns(reading.standings.get(caller.organization_id or ""), attr=f"checks__0__{attr}")


def _check_packed(caller: Caller, names: Sequence[str], tokens: Sequence[str], reading: Reading) -> None:
    for number, token in enumerate(tokens):
        caller.check_names(reading.owners.get(token) or "", attr=f"tokens__{number}")
    if names or tokens:
        attr = "organization_ids" if names else "tokens"
        caller.check_owns(reading.standings.get(caller.organization_id or ""), attr=f"{attr}__0")


def _read_checks(body: bytes) -> list[_Check]:
    checks: list[_Check] = _read(body, _decode_checks, field_name="checks").checks
    _check_count(len(checks), attr="checks", what="checks")
    for number, check in enumerate(checks):
        if (check.organization_id is None) == (check.token is None):
            raise Problem(
                400,
                "invalid_input",
                f"checks[{number}]: give either organization_id or token",
                attr=f"checks__{number}",
            )
    return checks


def _read_packed(body: bytes) -> _PackedChecks:
    asked: _PackedChecks = _read(body, _decode_packed, field_name="organization_ids")
    if (asked.organization_ids is None) == (asked.tokens is None):
        raise Problem(400, "invalid_input", "give either organization_ids or tokens", attr="organization_ids")
    attr = "organization_ids" if asked.tokens is None else "tokens"
    _check_count(len(asked.organization_ids or asked.tokens or ()), attr=attr, what="names")
    return asked


def _check_count(count: int, *, attr: str, what: str) -> None:
    if count > CHECKS_MAX:
        raise Problem(400, "too_many_checks", f"at most {CHECKS_MAX:,} {what} at once, not {count:,}", attr=attr)


def _read(body: bytes, decode: Callable[[bytes], Any], *, field_name: str) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise Problem(400, "invalid_input", str(error), attr=_attribute(error) or field_name) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "not_json", f"the body is not JSON: {error}") from error


def _attribute(error: msgspec.ValidationError) -> str:
    """Msgspec ends its messages with a path such as ``$.checks[3].usage_key``."""
    _, _, path = str(error).partition("at `$")
    return path.rstrip("`").replace("[", "__").replace("]", "").replace(".", "__").strip("_")


def _schema(of: type) -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([of], ref_template="#/$defs/{name}")
    return {**schema, "$defs": components} if components else schema


def _body(of: type) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema(of)}}}}


def _document(of: type) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"schema": _schema(of)}}}}
