"""Quota checks, one or many: find standings, answer, encode. No framework model on this path.

`QuotaDesk` answers in bytes and knows nothing of FastAPI, so that the raw ASGI front (`quill_quota_limiter.api.front`)
calls it as it is. The routes here declare the same for the OpenAPI document, and answer with the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Protocol, get_args

import msgspec
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from prometheus_client import Counter
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem
from quill_runtime.tallies import CountTally

from quill_quota_limiter.api.authorization import Caller, Gate
from quill_quota_limiter.api.quota_requests import Check, Checks, PackedChecks, read_checks, read_packed
from quill_quota_limiter.api.quota_scopes import next_end, scopes_asked, with_scopes
from quill_quota_limiter.domain.quota_answer import (
    OrganizationStanding,
    QuotaAnswer,
    ScopedQuotaAnswer,
    UnknownOrganizationPolicy,
    answer_check,
    answer_scoped_check,
)
from quill_quota_limiter.ports import AnswerSource, Reading

_EXAMPLES: Final = {"team": "12", "scope": "project:acme-web"}
ENCODED_MAX: Final = 50_000
"""Encoded answers kept for the next who asks the same; some 15 MB."""

CHECKS = Counter("quill_quota_checks", "Quota checks answered, by what they were answered from", ["source"])
_CHECKED: Final[Mapping[AnswerSource, CountTally]] = {
    source: CountTally(CHECKS.labels(source)) for source in get_args(AnswerSource)
}


class _OrganizationAnswers(msgspec.Struct, frozen=True):
    organization_id: str | None
    known: bool
    unknown_usage_keys: Literal["allowed", "denied"]
    revision: int | None
    answers: list[msgspec.Raw]


class _PackedAnswer(msgspec.Struct, frozen=True):
    limited: list[int]
    unknown: list[int]


class Answered(msgspec.Struct, frozen=True, gc=False):
    """An answer in bytes, what it was made from, and how old that was."""

    body: bytes
    source: AnswerSource
    age_ms: int


class Lookup(Protocol):
    """What `quill_quota_limiter.store.standing_lookup.StandingLookup` does."""

    def age_at_hand(self, organization_id: str, standing: OrganizationStanding) -> int | None:
        """Its age in milliseconds, if a fresh mirror has this very standing."""
        ...

    async def read(self, organization_ids: Sequence[str], tokens: Sequence[str] = ()) -> Reading: ...


_Encoded = tuple[OrganizationStanding, datetime | None, bytes]
"""Of which standing, until when it holds, and the answer."""
Said = tuple[str, OrganizationStanding, datetime | None, bytes]
"""An answer about an organization, with the standing it was made from and until when it holds."""
_NOTHING: Final[Mapping[str, _Encoded]] = {}

_encode: Final = msgspec.json.Encoder().encode


@dataclass(slots=True)
class QuotaDesk:
    """Answers quota checks in encoded form."""

    lookup: Lookup
    clock: Clock
    unknown: UnknownOrganizationPolicy
    _encoded: dict[str, dict[str, _Encoded]] = field(default_factory=dict)
    """By meter and organization: a name found twice is quicker than a pair made and hashed."""
    _encoded_count: int = 0
    """Of answers in ``_encoded``: adding its parts up at each new one would cost a batch of unknown meters seconds."""
    _encoded_scoped: dict[tuple[str, ...], _Encoded] = field(default_factory=dict)

    def said(self, organization_id: str, usage_key: str) -> Said | None:
        """What `answer_one` said last of an organization, for `repeat`."""
        kept = self._encoded.get(usage_key, _NOTHING).get(organization_id)
        return None if kept is None else (organization_id, *kept)

    def repeat(self, caller: Caller, said: Said) -> Answered | None:
        """What `answer_one` would say, if it was said before and nothing has changed since.

        ``None``: ask `answer_one`. It waits for nothing, so most checks of what does not change are answered here.
        """
        organization_id, standing, until, body = said
        age_ms = self.lookup.age_at_hand(organization_id, standing)
        if age_ms is None or (until is not None and self.clock.now() >= until):
            return None
        if caller.license_id is not None:
            caller.check_names(organization_id, attr="organization_id")
            caller.check_owns(standing, attr="organization_id")
        _CHECKED["mirror"].add(1)
        return Answered(body, "mirror", age_ms)

    async def answer_one(
        self, caller: Caller, name: str, usage_key: str, *, by: str = "organization", part: str | None = None
    ) -> Answered:
        """One answer as JSON; ``name`` is an organization's id or one of its project tokens.

        ``part``, for ``by`` team or scope, is the team's id or the scope's name in the organization.

        Raises:
            Forbidden: the caller may not ask about this organization.
            Problem: 404 when the organization is known and has no such meter or scope; 400 for another ``by``.
        """
        organization_id, reading = await self._find(caller, name, by, part)
        standing = reading.standings.get(organization_id) if organization_id is not None else None
        if standing is not None and usage_key not in standing.meters:
            known = ", ".join(sorted(standing.meters)) or "none"
            raise Problem(
                404,
                "unknown_usage_key",
                f"this organization has no meter {usage_key!r}; known: {known}",
                attr="usage_key",
            )
        scopes = scopes_asked(standing, name, by, part)
        body = self._encode_answer(organization_id, usage_key, standing, self.clock.now(), scopes)
        return _answered(body, reading, checks=1)

    async def answer_organization(
        self, caller: Caller, name: str, *, by: str = "organization", part: str | None = None
    ) -> Answered:
        """Every meter of one organization. Of an unknown one the answer says what the policy is and names none.

        Raises:
            Forbidden | Problem: as `answer_one`.
        """
        organization_id, reading = await self._find(caller, name, by, part)
        standing = reading.standings.get(organization_id) if organization_id is not None else None
        now, scopes = self.clock.now(), scopes_asked(standing, name, by, part)
        answers = [
            msgspec.Raw(self._encode_answer(organization_id, usage_key, standing, now, scopes))
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
        checks = read_checks(body)
        for number, check in enumerate(checks if caller.license_id is not None else ()):
            if check.organization_id is not None:
                caller.check_names(check.organization_id, attr=f"checks__{number}__organization_id")
        names = [check.organization_id for check in checks if check.organization_id is not None]
        tokens = [check.token for check in checks if check.token is not None]
        reading = await self.lookup.read(names, tokens)
        standings, owners = reading.standings, reading.owners
        if caller.license_id is not None:
            _check_batch(caller, checks, reading)
        now = self.clock.now()
        encode, encoded = self._encode_answer, self._encoded
        parts = []
        for check in checks:
            name = check.organization_id
            if name is None:
                name = owners.get(check.token)  # type: ignore[arg-type]
            standing = standings.get(name) if name is not None else None
            if check.team is None and check.token is None:
                # As `_encode_answer` would find it; the call costs as much as all else that is done for a check.
                kept = encoded.get(check.usage_key, _NOTHING).get(name)  # type: ignore[arg-type]
                if kept is not None and kept[0] is standing and (kept[1] is None or now < kept[1]):
                    parts.append(kept[2])
                    continue
            parts.append(encode(name, check.usage_key, standing, now, _scopes_of(check, standing)))
        if not parts:
            return _answered(b'{"answers":[]}', reading, checks=0)
        # In the parts, and not around what they make together: that is large, and would be copied twice more.
        parts[0] = b'{"answers":[' + parts[0]
        parts[-1] += b"]}"
        return _answered(b",".join(parts), reading, checks=len(checks))

    async def answer_packed(self, caller: Caller, body: bytes) -> Answered:
        """``{"limited": […], "unknown": […]}``: places in the list of who may not use the meter, and of who is unknown.

        Under the policy ``deny`` who is unknown is in both.

        Raises:
            Problem: 400 naming the field, also above 10,000 names.
            Forbidden: the caller may not ask about one of the organizations.
        """
        asked = read_packed(body)
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
        if tokens:
            limited = with_scopes(
                limited, tokens=tokens, organizations=organizations, usage_key=usage_key, reading=reading, now=now
            )
        return (sorted({*limited, *unknown}) if denies else limited), unknown

    async def _find(self, caller: Caller, name: str, by: str, part: str | None) -> tuple[str | None, Reading]:
        if by in ("team", "scope") and not part:
            raise Problem(400, "invalid_input", f"{by}: name it, e.g. ?by={by}&{by}={_EXAMPLES[by]}", attr=by)
        if by in ("organization", "team", "scope"):
            caller.check_names(name, attr="organization_id")
            reading = await self.lookup.read([name])
            if caller.license_id is not None:
                caller.check_owns(reading.standings.get(name), attr="organization_id")
            return name, reading
        if by != "token":
            raise Problem(
                400, "invalid_input", f"by: must be organization, token, team or scope, not {by!r}", attr="by"
            )
        reading = await self.lookup.read([], [name])
        owner = reading.owners.get(name)
        if caller.license_id is not None:
            caller.check_names(owner or "", attr="token")
            caller.check_owns(reading.standings.get(owner or ""), attr="token")
        return owner, reading

    def _encode_answer(
        self,
        organization_id: str | None,
        usage_key: str,
        standing: OrganizationStanding | None,
        now: datetime,
        scopes: tuple[str, ...] | None = None,
    ) -> bytes:
        """``scopes``: what binds who asked beside the organization; ``None`` when that asked itself, or has none."""
        if standing is None or organization_id is None:
            return _encode(answer_check(organization_id, usage_key, standing, unknown=self.unknown, now=now))
        if scopes is not None:
            return self._encode_scoped(organization_id, usage_key, standing, now, scopes)
        of_meter = self._encoded.setdefault(usage_key, {})
        kept = of_meter.get(organization_id)
        if kept is not None and kept[0] is standing and (kept[1] is None or now < kept[1]):
            return kept[2]
        answer: QuotaAnswer = answer_check(organization_id, usage_key, standing, unknown=self.unknown, now=now)
        encoded = _encode(answer)
        if kept is None:
            self._encoded_count += 1
        if self._encoded_count > ENCODED_MAX:
            self._encoded.clear()
            of_meter, self._encoded_count = self._encoded.setdefault(usage_key, {}), 1
        # A limit whose end has not come changes the answer when it comes; one that has passed changes it no more.
        of_meter[organization_id] = (standing, answer.limited_until, encoded)
        return encoded

    def _encode_scoped(
        self, organization_id: str, usage_key: str, standing: OrganizationStanding, now: datetime, scopes: Sequence[str]
    ) -> bytes:
        key = (organization_id, usage_key, *scopes, "")
        kept = self._encoded_scoped.get(key)
        if kept is not None and kept[0] is standing and (kept[1] is None or now < kept[1]):
            return kept[2]
        answer = answer_scoped_check(organization_id, usage_key, standing, scopes, unknown=self.unknown, now=now)
        encoded = _encode(answer)
        if len(self._encoded_scoped) >= ENCODED_MAX:
            self._encoded_scoped.clear()
        self._encoded_scoped[key] = (standing, next_end(standing, usage_key, scopes, now), encoded)
        return encoded


def router(desk: QuotaDesk, gate: Gate) -> APIRouter:
    """``/v1/quota/…``."""
    routes = APIRouter(tags=["quota"])
    header = Annotated[str | None, Header()]
    by_name = Annotated[str, Query(json_schema_extra={"enum": ["organization", "token", "team", "scope"]})]
    named = Annotated[str | None, Query(description="With by=team the team's id; with by=scope e.g. project:acme-web.")]

    @routes.get("/v1/quota/{organization_id}/{usage_key}", response_model=None, responses=_document(ScopedQuotaAnswer))
    async def check_quota(
        *,
        organization_id: str,
        usage_key: str,
        by: by_name = "organization",
        team: named = None,
        scope: named = None,
        authorization: header = None,
    ) -> Response:
        """May this organization use this meter now?

        ``?by=token``: the project with this token. ``?by=team&team=12``: this team of the organization.
        ``?by=scope&scope=project:acme-web``: this project of it. Those answers are the tightest of the limits of the
        organization, the project and the team, and say whose it is in ``scope``.
        """
        part = {"team": team, "scope": scope}.get(by)
        answered = await desk.answer_one(gate.admit(authorization), organization_id, usage_key, by=by, part=part)
        return respond(answered)

    @routes.get("/v1/quota/{organization_id}", response_model=None, responses=_document(_OrganizationAnswers))
    async def check_organization(
        *,
        organization_id: str,
        by: by_name = "organization",
        team: named = None,
        scope: named = None,
        authorization: header = None,
    ) -> Response:
        """Which of its meters may this organization, or this part of it, use now?"""
        part = {"team": team, "scope": scope}.get(by)
        answered = await desk.answer_organization(gate.admit(authorization), organization_id, by=by, part=part)
        return respond(answered)

    @routes.post("/v1/quota", response_model=None, openapi_extra=_body(Checks))
    async def check_quotas(request: Request, authorization: header = None) -> Response:
        """Up to 10,000 checks: ``{"checks": [{"organization_id" (and "team") or "token", "usage_key"}, …]}``."""
        return respond(await desk.answer_many(gate.admit(authorization), await request.body()))

    @routes.post(
        "/v1/quota/packed", response_model=None, openapi_extra=_body(PackedChecks), responses=_document(_PackedAnswer)
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
    _CHECKED[reading.source].add(checks)
    return Answered(body, reading.source, reading.age_ms)


def _scopes_of(check: Check, standing: OrganizationStanding | None) -> tuple[str, ...] | None:
    """What binds who asked beside the organization; ``None``: the organization asked, or has no scopes."""
    if standing is None or standing.scopes is None:
        return None
    if check.token is not None:
        return standing.scopes.scopes_of_token(check.token)
    return None if check.team is None else standing.scopes.teams.get(check.team, ())


def _check_batch(caller: Caller, checks: Sequence[Check], reading: Reading) -> None:
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


def _schema(of: type) -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([of], ref_template="#/$defs/{name}")
    return {**schema, "$defs": components} if components else schema


def _body(of: type) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema(of)}}}}


def _document(of: type) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"schema": _schema(of)}}}}
