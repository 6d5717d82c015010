"""Customer facts as one JSON document: read whole, never queried by their parts."""

from typing import Any

import msgspec

from quill_usage_ingest.domain.organization import CustomerFacts


def facts_to_json(facts: CustomerFacts) -> Any:
    """The facts as plain JSON values."""
    return msgspec.to_builtins(facts)


def facts_from_json(document: Any) -> CustomerFacts:
    """The facts as stored.

    Raises:
        msgspec.ValidationError: the row was not written by `facts_to_json`.
    """
    return msgspec.convert(document, CustomerFacts)
