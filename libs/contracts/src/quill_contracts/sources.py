"""How far each source of usage has told everything: watermarks in, the state of every source out."""

from typing import Annotated, Literal

from pydantic import Field

from quill_contracts.identifiers import Instant, OrganizationId, Revision, SourceName
from quill_contracts.message import Message, WireModel

WAIVERS_MAX = 1_000


class SourceWatermark(Message):
    """A source's word that it has sent everything it knows up to ``complete_through`` (``usage.watermarks.v1``).

    It may be sent again and out of order: the largest counts. It must be sent after the reports it speaks for were
    confirmed. What still comes for an earlier window is late usage.
    """

    source: SourceName
    complete_through: Instant
    as_of: Instant
    """When the source said so; what was said before an operator's reset counts no longer."""


class Waiver(WireModel):
    """A named person's word that usage of this source up to ``through`` need not be waited for.

    With an organization it is for that one alone.
    """

    waiver_id: Annotated[str, Field(min_length=1, max_length=200)]
    through: Instant
    actor: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Annotated[str, Field(min_length=1, max_length=1_000)]
    at: Instant
    organization_id: OrganizationId | None = None


class UsageSource(Message):
    """What is known of one source (``usage.sources.v1``, key: source).

    ``complete_through``: everything that the source sent for windows before it has been entered and published, but for
    ``parked`` reports; null while the source has never said. ``silent`` is an alert: an expected source has not been
    heard of for longer than it may be. ``heard_at`` is as of this revision: hearing a source again makes no new one.
    """

    source: SourceName
    revision: Revision
    is_expected: bool
    state: Literal["reporting", "silent", "retired"]
    heard_at: Instant | None = None
    silent_since: Instant | None = None
    complete_through: Instant | None = None
    parked: Annotated[int, Field(ge=0)] = 0
    """Reports of it that could not be entered and wait as dead letters."""
    waivers: Annotated[list[Waiver], Field(max_length=WAIVERS_MAX)] = []
    """Those in force."""
