"""``billing_customer_update``: the message that tells PostHog's queue of a customer (wire contract 6)."""

import base64
import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

TYPE: Final = "billing_customer_update"
MESSAGE_BYTES_MAX: Final = 262_144
"""What every SQS-compatible queue takes: 256 KiB, names and values of the attributes included."""
_NOT_FOR_QUEUES: Final = re.compile("[\ufffe\uffff]")
"""Characters that JSON may carry and the queue's protocol may not."""


class UpdateTooLarge(ValueError):
    """Not even packed does the update fit into one message."""


@dataclass(frozen=True, slots=True)
class QueuedUpdate:
    """A message as the queue takes it."""

    body: str
    attributes: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """As the queue counts."""
        named = sum(len(name) + len("String") + len(value) for name, value in self.attributes.items())
        return len(self.body.encode()) + named


def queued_update(organization_id: str, data: Mapping[str, Any], *, packed: bool) -> QueuedUpdate:
    """JSON, or base64 of gzip of it if ``packed`` or if it would not fit (or not pass) otherwise.

    Raises:
        UpdateTooLarge: with the sizes.
    """
    document = {"type": TYPE, "organization_id": organization_id, "data": data}
    # The bytes of ``data`` are those that the API answers: the same rules of writing JSON.
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    plain = QueuedUpdate(text, {"content_type": "application/json"})
    if not packed and plain.size_bytes <= MESSAGE_BYTES_MAX and not _NOT_FOR_QUEUES.search(text):
        return plain
    body = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    small = QueuedUpdate(body, {**plain.attributes, "content_encoding": "gzip"})
    if small.size_bytes > MESSAGE_BYTES_MAX:
        raise UpdateTooLarge(
            f"the billing object of {organization_id} has {plain.size_bytes} bytes, {small.size_bytes} packed;"
            f" a message holds {MESSAGE_BYTES_MAX}. Retire features or products from its catalog revision"
        )
    return small
