"""How fresh a total is, as answers carry it."""

from typing import Any

from quill_usage_ingest.domain.freshness import Freshness


def to_wire_freshness(freshness: Freshness) -> dict[str, Any]:
    """One sentence, then how many sources, through when, and each of them."""
    through, known = freshness.complete_through, freshness.known_through
    return {
        "sentence": freshness.sentence,
        "expected": len(freshness.expected),
        "complete": len(freshness.complete),
        "complete_through": through.isoformat() if through else None,
        "known_through": known.isoformat() if known else None,
        "parked": freshness.parked,
        "sources": [
            {
                "source": each.source.source,
                "is_expected": each.source.is_expected,
                "complete_through": each.source.complete.through.isoformat() if each.source.complete.through else None,
                "heard_at": each.source.heard_at.isoformat() if each.source.heard_at else None,
                "state": each.source.state.value,
                "parked": each.parked,
            }
            for each in freshness.sources
        ],
    }
