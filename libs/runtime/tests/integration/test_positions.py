"""Positions of several partitions move together or not at all, and only under the newest epoch."""

import pytest
from quill_runtime import positions
from quill_runtime.database import Database
from quill_runtime.positions import Fenced, Partition

pytestmark = pytest.mark.integration
PARTITIONS = [Partition("usage", number) for number in (0, 1, 2)]
GROUP = "group"


async def taken(database: Database, partitions):
    async with database.begin() as transaction:
        return await positions.take(transaction, group=GROUP, partitions=partitions)


async def standing(database: Database):
    async with database.begin() as transaction:
        held = await positions.positions(transaction, group=GROUP)
    return {partition.number: (each.applied_offset, each.settled_offset) for partition, each in held.items()}


async def test_all_partitions_of_a_batch_move_forward_and_none_back(database):
    owned = await taken(database, PARTITIONS)
    for applied, settled in (({0: 5, 2: 7}, {0: 3}), ({0: 4, 1: 1}, {2: 6, 0: 4})):
        async with database.begin() as transaction:
            await positions.lock(transaction, group=GROUP, owned=owned, partitions=PARTITIONS)
            await positions.advance(
                transaction,
                group=GROUP,
                owned=owned,
                applied={PARTITIONS[number]: offset for number, offset in applied.items()},
                settled={PARTITIONS[number]: offset for number, offset in settled.items()},
            )
    assert await standing(database) == {0: (5, 4), 1: (1, 0), 2: (7, 6)}


async def test_one_partition_with_a_newer_owner_stops_the_whole_batch(database):
    owned = await taken(database, PARTITIONS)
    await taken(database, [PARTITIONS[1]])
    applied = dict.fromkeys(PARTITIONS, 9)
    with pytest.raises(Fenced, match=r"usage\[1\] has a newer owner"):
        async with database.begin() as transaction:
            await positions.lock(transaction, group=GROUP, owned=owned, partitions=PARTITIONS)
    with pytest.raises(Fenced, match=r"usage\[1\] has a newer owner"):
        async with database.begin() as transaction:
            await positions.advance(transaction, group=GROUP, owned=owned, applied=applied, settled={})
    del owned[PARTITIONS[2]]
    with pytest.raises(Fenced, match=r"usage\[2\] is not assigned here"):
        async with database.begin() as transaction:
            await positions.advance(transaction, group=GROUP, owned=owned, applied=applied, settled={})
    assert await standing(database) == {0: (0, 0), 1: (0, 0), 2: (0, 0)}
