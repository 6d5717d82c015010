"""What arrived through a queue or a bucket in PostHog's shape, on its way to the one consumer that enters reports.

A queue forgets a message once it is deleted, so an intake first copies it here, byte for byte. From then on it is kept,
parked and replayed like every other record (L4).
"""

from typing import Annotated, Literal

from pydantic import Field

from quill_contracts.identifiers import Instant, LicenseId, SourceName
from quill_contracts.licenses import LicenseType
from quill_contracts.message import Message
from quill_contracts.usage import Completeness

Generation = Literal["v1", "v2"]
"""Of PostHog's usage reports: one message per organization and day, or runs of chunk files every half hour."""
BodyEncoding = Literal["identity", "base64-gzip"]


class DailyReport(Message):
    """One organization's report for one UTC day, undecoded (``usage.daily-reports.v1``).

    ``body`` is JSON ``{"organization_id", "usage_report"}``, plain or base64 of its gzip. ``completeness`` and
    ``as_of`` are what its carrier says of it; where the carrier is silent, the day's end decides and ``as_of`` is when
    the queue took the message.

    With ``license_id`` it is a report that a license sent to ``POST /api/usage`` before its organization was known, and
    ``body`` is the report itself. It enters only if that license may speak for the organization by then (L17, L18).
    """

    generation: Generation
    source: SourceName
    as_of: Instant
    completeness: Completeness | None = None
    encoding: BodyEncoding = "identity"
    body: str
    license_id: LicenseId | None = None
    license_type: LicenseType | None = None
    run_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The v2 run that carried it, with the chunk and the line it stood in."""
    chunk_key: Annotated[str, Field(max_length=1_024)] | None = None
    line: Annotated[int, Field(ge=1)] | None = None


class ReportRun(Message):
    """A v2 pointer as the queue held it: a run of chunk files is ready in a bucket (``usage.report-runs.v1``)."""

    source: SourceName
    sent_at: Instant
    body: str
