"""Where each consumer group stands, kept with the data, and who may move it.

Taking a partition raises its owner epoch; a write under an older epoch touches no row and the whole transaction is
given up. So a zombie that was thought dead cannot commit anything (reliability A8, fault 22).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import bindparam, select, text, update
from sqlalchemy.dialects.postgresql import insert

from quill_runtime.database import Transaction
from quill_runtime.tables import consumer_positions


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
    for partition in sorted({*applied, *settled}):
        ownership = owned.get(partition)
        if ownership is None:
            raise Fenced(f"{partition.topic}[{partition.number}] is not assigned here any more")
        result = await transaction.connection.execute(
            update(consumer_positions)
            .where(
                consumer_positions.c.consumer_group == group,
                consumer_positions.c.topic == partition.topic,
                consumer_positions.c.partition == partition.number,
                consumer_positions.c.owner_epoch == bindparam("epoch", ownership.epoch),
            )
            .values(
                applied_offset=text("greatest(applied_offset, :to_applied)").bindparams(
                    to_applied=applied.get(partition, 0)
                ),
                settled_offset=text("greatest(settled_offset, :to_settled)").bindparams(
                    to_settled=settled.get(partition, 0)
                ),
            )
        )
        if result.rowcount != 1:
            raise Fenced(f"{partition.topic}[{partition.number}] has a newer owner than epoch {ownership.epoch}")


async def positions(transaction: Transaction, *, group: str) -> dict[Partition, Ownership]:
    """All positions of a group, for tests and operators."""
    rows = await transaction.connection.execute(
        select(consumer_positions).where(consumer_positions.c.consumer_group == group)
    )
    return {
        Partition(row.topic, row.partition): Ownership(row.owner_epoch, row.settled_offset, row.applied_offset)
        for row in rows
    }
