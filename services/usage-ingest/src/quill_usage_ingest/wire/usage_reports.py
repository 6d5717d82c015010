"""Usage reports from Kafka: the contract's rules at msgspec's speed."""

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct
from quill_contracts.identifiers import QUANTITY_MAX
from quill_contracts.usage import UsageReport as WireUsageReport

from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.usage_report import Correction, InvalidWindow, UsageReport, window_of

_UTC: Final = timedelta(0)

_Quantity = Annotated[int, Meta(ge=0, le=QUANTITY_MAX)]
_CounterName = Annotated[str, Meta(min_length=1, max_length=200)]
_Instant = Annotated[datetime, Meta(tz=True)]
_Counters = Annotated[dict[_CounterName, _Quantity], Meta(max_length=1_000)]


class _Correction(Struct, frozen=True, gc=False):
    actor: Annotated[str, Meta(min_length=1, max_length=200)]
    reason: Annotated[str, Meta(min_length=1, max_length=1_000)]


class _Report(Struct, frozen=True):
    r"""`quill_contracts.usage.UsageReport` for the fast path: whatever this accepts, the contract accepts, teams apart.

    Patterns end in ``\Z``: Python's ``$`` would let a trailing newline through.
    """

    report_id: Annotated[str, Meta(min_length=1, max_length=200)]
    source: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+\Z")]
    organization_id: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:-]+\Z")]
    window_start: _Instant
    window_end: _Instant
    completeness: Literal["partial", "complete"]
    """Only a person of ours may say ``corrected``, and not by this way."""
    as_of: _Instant
    counters: _Counters
    teams: msgspec.Raw = msgspec.Raw(b"{}")
    """Left as bytes: what teams used is read, and refused, off the limit path (`wire.team_reports`)."""
    correction: _Correction | None = None
    license_id: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+\Z")] | None = None


_report_decoder = msgspec.json.Decoder(_Report)
_content_encoder = msgspec.json.Encoder(order="deterministic")


class UnstorableText(ValueError):
    """A name or a reason holds a NUL character, which no Postgres text can keep; names the field."""

    def __init__(self, attribute: str) -> None:
        super().__init__(f"{attribute}: holds a NUL character")
        self.attribute = attribute


def from_wire_usage_report(value: bytes) -> UsageReport:
    """Decode the value of a ``usage.reports.v1`` record by the rules of the contract.

    msgspec decides the common case in a tenth of the time (performance 1). What it refuses gets a second opinion from
    the contract's own model, whose answer is final and names the field.

    Raises:
        pydantic.ValidationError: naming each field that is wrong.
        UnstorableText: a text that could not be kept.
    """
    wire = decoded_report(value)
    if b"\\u0000" in value:
        _refuse_nul(wire)
    return UsageReport(
        report_id=wire.report_id,
        organization_id=wire.organization_id,
        source=wire.source,
        window=window_of(wire.window_start, wire.window_end),
        completeness=Completeness(wire.completeness),
        as_of=wire.as_of,
        counters=wire.counters,
        content_hash=hashlib.sha256(_content_encoder.encode(wire)).digest(),
        correction=Correction(wire.correction.actor, wire.correction.reason) if wire.correction else None,
    )


def decoded_report(value: bytes) -> _Report:
    """The message, decoded and valid; what `from_wire_usage_report` adds is the claim's identity.

    Raises:
        pydantic.ValidationError: naming each field that is wrong.
    """
    try:
        if not value.isascii():
            value.decode()
        wire = _report_decoder.decode(value)
        window_of(wire.window_start, wire.window_end)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidWindow, RecursionError):
        return _by_contract(value)
    return wire if wire.as_of.utcoffset() == _UTC else _by_contract(value)


def _by_contract(value: bytes) -> _Report:
    return _report_decoder.decode(WireUsageReport.from_bytes(value).to_bytes())


def _refuse_nul(wire: _Report) -> None:
    texts = {"report_id": wire.report_id, **{f"counters__{name}": name for name in wire.counters}}
    if wire.correction is not None:
        texts |= {"correction__actor": wire.correction.actor, "correction__reason": wire.correction.reason}
    for attribute, text in texts.items():
        if "\x00" in text:
            raise UnstorableText(attribute.replace("\x00", "\\0"))
