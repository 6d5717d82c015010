"""How far each source of usage has told everything: watermarks in, the state of every source out."""

from typing import Annotated, Literal

from pydantic import Field

from quill_contracts.identifiers import Instant, Revision, SourceName
from quill_contracts.message import Message, WireModel


class SourceWatermark(Message):
    """A source's word that it has sent everything it knows up to ``complete_through`` (``usage.watermarks.v1``).

    It may be sent again and out of order: the largest counts. What still comes for an earlier window is late usage.
    """

    source: SourceName
    complete_through: Instant
    as_of: Instant


class Waiver(WireModel):
    """A named person's word that usage of this source up to ``through`` need not be waited for."""

    through: Instant
    actor: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Annotated[str, Field(min_length=1, max_length=1_000)]
    at: Instant


class UsageSource(Message):
    """What is known of one source (``usage.sources.v1``, key: source).

    ``complete_through`` is null while the source has never said. ``silent`` is an alert: an expected source has not
    been heard of for longer than it may be.
    """

    source: SourceName
    revision: Revision
    is_expected: bool
    state: Literal["reporting", "silent", "retired"]
    heard_at: Instant | None = None
    silent_since: Instant | None = None
    complete_through: Instant | None = None
    waivers: Annotated[list[Waiver], Field(max_length=1_000)] = []
