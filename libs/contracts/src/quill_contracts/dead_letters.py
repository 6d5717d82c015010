"""A record that could not be applied, with its bytes and the reason (L4)."""

from quill_contracts.identifiers import Instant
from quill_contracts.message import Message


class DeadLetter(Message):
    """One parked record (``<topic>.dead``). Key and value are base64 of the exact bytes received."""

    topic: str
    partition: int
    offset: int
    consumer_group: str
    key_base64: str | None
    value_base64: str | None
    reason_code: str
    attribute: str | None
    detail: str
    parked_at: Instant
