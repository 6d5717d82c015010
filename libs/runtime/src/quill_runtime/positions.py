"""Where each consumer group stands, kept with the data, and who may move it.

Taking a partition raises its owner epoch; a write under an older epoch touches no row and the whole transaction is
given up. So a zombie that was thought dead cannot commit anything (reliability A8, fault 22).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import TextClause, select, text
from sqlalchemy.dialects.postgresql import insert

from quill_runtime.database import Transaction
from quill_runtime.tables import consumer_positions

# One statement for all partitions of a batch: with one each, the smallest batches of a wide topic cost the most.
_LOCK: Final[TextClause] = text(
    """
    select p.topic, p.partition
    from unnest(cast(:topics as text[]), cast(:numbers as int[]), cast(:epochs as bigint[])) as k(topic, number, epoch)
    join consumer_positions as p on p.topic = k.topic and p.partition = k.number and p.owner_epoch = k.epoch
    where p.consumer_group = :group
    order by p.topic, p.partition
    for update of p
    """
)
_ADVANCE: Final[TextClause] = text(
    """
    update consumer_positions as p
    set applied_offset = greatest(p.applied_offset, k.applied), settled_offset = greatest(p.settled_offset, k.settled)
    from unnest(cast(:topics as text[]), cast(:numbers as int[]), cast(:epochs as bigint[]),
                cast(:applied as bigint[]), cast(:settled as bigint[])) as k(topic, number, epoch, applied, settled)
    where p.consumer_group = :group and p.topic = k.topic and p.partition = k.number and p.owner_epoch = k.epoch
    returning p.topic, p.partition
    """
)


class Fenced(Exception):
    """Another member owns the partition now; drop the work in hand, it will be done there."""


class Partition(NamedTuple):
    """A partition of a topic. A tuple, because one is looked up for every record."""

    topic: str
    number: int


@dataclass(slots=True)
class Ownership:
    """What this member holds of one partition.

    Attributes:
        epoch: rises with each owner.
        settled_offset: where reading starts: everything before it is committed and followed up.
        applied_offset: everything before it is committed.
    """

    epoch: int
    settled_offset: int
    applied_offset: int


async def take(transaction: Transaction, *, group: str, partitions: Iterable[Partition]) -> dict[Partition, Ownership]:
    """Become the owner of partitions; earlier owners are fenced from this commit on."""
    taken: dict[Partition, Ownership] = {}
    for partition in sorted(partitions):
        statement = (
            insert(consumer_positions)
            .values(
                consumer_group=group,
                topic=partition.topic,
                partition=partition.number,
                owner_epoch=1,
                applied_offset=0,
                settled_offset=0,
            )
            .on_conflict_do_update(
                index_elements=["consumer_group", "topic", "partition"],
                set_={"owner_epoch": consumer_positions.c.owner_epoch + 1},
            )
            .returning(
                consumer_positions.c.owner_epoch,
                consumer_positions.c.settled_offset,
                consumer_positions.c.applied_offset,
            )
        )
        row = (await transaction.connection.execute(statement)).one()
        taken[partition] = Ownership(row.owner_epoch, row.settled_offset, row.applied_offset)
    return taken


async def lock(
    transaction: Transaction, *, group: str, owned: Mapping[Partition, Ownership], partitions: Collection[Partition]
) -> None:
    """Hold these partitions' rows until the end of the transaction, so that two owners take turns.

    Raises:
        Fenced: at least one partition has a newer owner; the transaction must be rolled back.
    """
    if partitions:
        parameters = _epochs(group, owned, sorted(partitions))
        _check_all(partitions, await transaction.connection.execute(_LOCK, parameters))


async def advance(
    transaction: Transaction,
    *,
    group: str,
    owned: Mapping[Partition, Ownership],
    applied: Mapping[Partition, int],
    settled: Mapping[Partition, int],
) -> None:
    """Move positions forward under the epochs held.

    Raises:
        Fenced: at least one partition has a newer owner; the transaction must be rolled back.
    """
    partitions = sorted({*applied, *settled})
    if partitions:
        parameters = _epochs(group, owned, partitions) | {
            "applied": [applied.get(partition, 0) for partition in partitions],
            "settled": [settled.get(partition, 0) for partition in partitions],
        }
        _check_all(partitions, await transaction.connection.execute(_ADVANCE, parameters))


def _epochs(group: str, owned: Mapping[Partition, Ownership], partitions: Sequence[Partition]) -> dict[str, Any]:
    for partition in partitions:
        if partition not in owned:
            raise Fenced(f"{partition.topic}[{partition.number}] is not assigned here any more")
    return {
        "group": group,
        "topics": [partition.topic for partition in partitions],
        "numbers": [partition.number for partition in partitions],
        "epochs": [owned[partition].epoch for partition in partitions],
    }


def _check_all(partitions: Collection[Partition], rows: Iterable[Any]) -> None:
    fenced = set(partitions) - {Partition(row.topic, row.partition) for row in rows}
    if fenced:
        first = min(fenced)
        raise Fenced(f"{first.topic}[{first.number}] has a newer owner")


async def positions(transaction: Transaction, *, group: str) -> dict[Partition, Ownership]:
    """All positions of a group, for tests and operators."""
    rows = await transaction.connection.execute(
        select(consumer_positions).where(consumer_positions.c.consumer_group == group)
    )
    return {
        Partition(row.topic, row.partition): Ownership(row.owner_epoch, row.settled_offset, row.applied_offset)
        for row in rows
    }
