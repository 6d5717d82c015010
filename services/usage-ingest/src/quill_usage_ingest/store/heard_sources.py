"""Which sources were heard of lately: noted in memory on the way in, written at most once a minute by a job."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from quill_usage_ingest.domain.usage_source import is_source_name

WRITE_EVERY: Final = timedelta(minutes=1)
NOTED_MAX: Final = 10_000
"""Names remembered at once; strangers beyond are heard when there is room again."""


@dataclass(slots=True)
class HeardSources:
    """One per process. What a crash forgets is noted again with the source's next report."""

    _heard: dict[str, datetime] = field(default_factory=dict)
    _written: dict[str, datetime] = field(default_factory=dict)

    def note(self, source: str, now: datetime) -> None:
        """Something of the source arrived."""
        if source in self._heard or (len(self._heard) < NOTED_MAX and is_source_name(source)):
            self._heard[source] = now

    def to_write(self) -> dict[str, datetime]:
        """What was heard since it was last written, of sources not written for a minute."""
        return {
            source: at
            for source, at in self._heard.items()
            if (last := self._written.get(source)) is None or at >= last + WRITE_EVERY
        }

    def wrote(self, written: dict[str, datetime]) -> None:
        """These are in the database now."""
        self._written |= written
