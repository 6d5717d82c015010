"""PostHog's two generations of usage reports, and which of them only looks on."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Generation(StrEnum):
    """How a region sends its daily reports."""

    V1 = "v1"
    """One message per organization with usage, once a day; before queues, one HTTP call."""
    V2 = "v2"
    """Runs of chunk files every half hour, organizations without usage included."""


GENERATION_OF_INTAKE: Final = {"http": Generation.V1, "queue-v1": Generation.V1, "bucket-v2": Generation.V2}
"""Intakes that carry PostHog's daily report; all others are no side of the comparison."""
_ENTRY: Final = re.compile(r"(?:(?P<source>[A-Za-z0-9_.:-]{1,100})=)?(?P<generation>v1|v2)\Z")


class InvalidShadows(ValueError):
    """An entry is no generation, or a source would be left without one that counts."""


@dataclass(frozen=True, slots=True)
class ShadowedGenerations:
    """Generations that are kept and compared and do not count; by source, or of every source (None)."""

    entries: frozenset[tuple[str | None, Generation]] = frozenset()

    @classmethod
    def parse(cls, text: str) -> "ShadowedGenerations":
        """``v2`` for every source, ``us=v2,eu=v1`` for some; nothing means that all count by rank.

        Raises:
            InvalidShadows: naming the entry.
        """
        entries: set[tuple[str | None, Generation]] = set()
        for entry in (each.strip() for each in text.split(",")):
            if not entry:
                continue
            found = _ENTRY.match(entry)
            if found is None:
                raise InvalidShadows(f"{entry!r}: write v1 or v2, or <source>=v1 or <source>=v2")
            entries.add((found["source"], Generation(found["generation"])))
        shadows = cls(frozenset(entries))
        for source in sorted({source for source, _ in entries}, key=str):
            if all(shadows.holds(source, generation) for generation in Generation):
                named = "every source" if source is None else source
                raise InvalidShadows(f"{named}: both generations would be shadowed and nothing would count")
        return shadows

    def holds(self, source: str | None, generation: Generation) -> bool:
        """Whether this generation of this source only looks on."""
        return (source, generation) in self.entries or (None, generation) in self.entries
