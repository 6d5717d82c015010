"""Fills a keyring from a compacted topic of signing keys, opening each sealed secret on the way in."""

from collections.abc import Sequence
from datetime import datetime

import orjson

from quill_runtime.auth import Key, Keyring
from quill_runtime.consumption import Record
from quill_runtime.sealing import Sealer
from quill_runtime.table_reader import TableReader


def keyring_table(
    *,
    topic: str,
    bootstrap_servers: str,
    keyring: Keyring,
    sealer: Sealer,
    key_id_field: str,
    attributes: Sequence[str],
) -> TableReader:
    """A reader of JSON records with ``sealed_secret``, ``status``, ``revision`` and ``expires_at``.

    The sealing context of a secret is its key id, so that a secret moved to another key's record does not open.
    """

    def take(record: Record) -> None:
        if record.value is None:
            return
        fields = orjson.loads(record.value)
        key_id: str = fields[key_id_field]
        expires_at = fields.get("expires_at")
        keyring.put(
            Key(
                key_id=key_id,
                secret=sealer.open(fields["sealed_secret"], context=key_id),
                revoked=fields["status"] != "active",
                expires_at=datetime.fromisoformat(expires_at) if expires_at else None,
                attributes={name: str(fields[name]) for name in attributes},
            ),
            revision=fields["revision"],
        )

    return TableReader(topic=topic, bootstrap_servers=bootstrap_servers, on_record=take)
