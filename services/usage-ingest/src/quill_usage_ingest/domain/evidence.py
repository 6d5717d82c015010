"""A kept report as evidence for a number: what it claims, how it came, and when it counted (L5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from quill_usage_ingest.domain.usage_book import Verdict
from quill_usage_ingest.domain.usage_report import UsageReport

NEVER_COUNTED: Final = frozenset({Verdict.VOIDED, Verdict.SHADOWED})
"""Verdicts under which a kept report holds no cell."""


@dataclass(frozen=True, slots=True)
class OutOfCount:
    """A span in which a named person had taken a report out of count; ``until`` is None while that holds (L3, L20)."""

    correction_id: str
    actor: str
    reason: str
    since: datetime
    until: datetime | None = None

    def covers(self, instant: datetime) -> bool:
        """Half-open, as every span (L21)."""
        return self.since <= instant and (self.until is None or instant < self.until)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One kept report.

    Attributes:
        kept_id: rises with arrival; breaks the tie between reports that arrived in one batch.
        correction_id: of the correction that entered it; None for what a source said.
        out_of_count: every span in which it did not count, oldest first.
    """

    kept_id: int
    report: UsageReport
    received_at: datetime
    intake: str
    verdict: Verdict
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    note: Mapping[str, Any] | None = None
    correction_id: str | None = None
    out_of_count: tuple[OutOfCount, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it counts now."""
        return self.verdict not in NEVER_COUNTED

    def counted_at(self, instant: datetime) -> bool:
        """Whether it had arrived by then and was not out of count then."""
        if self.received_at > instant or self.verdict is Verdict.SHADOWED:
            return False
        if self.verdict is Verdict.VOIDED and not self.out_of_count:
            return False
        return not any(span.covers(instant) for span in self.out_of_count)
