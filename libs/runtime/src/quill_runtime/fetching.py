"""How long the broker holds a fetch that finds nothing: long when it asks for everything, hardly when it does not.

aiokafka sends a broker one fetch at a time, and leaves out partitions whose records are still worked at. Such a fetch
must come back soon, for until then nothing new of those partitions can be asked for. One that asks for every partition
may be held as long as we like, since any record ends it at once; so an idle consumer asks twice a second and not a
hundred times. aiokafka knows only one waiting time for both.
"""

from typing import Any, Final

from aiokafka import AIOKafkaConsumer

PARTIAL_WAIT_MS: Final = 10
"""What the client is configured with; holds for fetches that leave a partition out."""
WHOLE_WAIT_MS: Final = 500


def hold_whole_fetches(consumer: AIOKafkaConsumer) -> None:
    """Let a started consumer's fetches for all of its partitions be held `WHOLE_WAIT_MS`.

    It reaches into aiokafka, whose version is locked; a test counts the fetches of an idle consumer.
    """
    fetcher: Any = consumer._fetcher  # noqa: SLF001 - there is no public way
    plan = fetcher._get_actions_per_node  # noqa: SLF001

    def plan_patiently(assignment: Any) -> Any:
        actions = plan(assignment)
        if not fetcher._records:  # noqa: SLF001 - nothing waits to be read, so nothing is left out
            for _, request in actions[0]:
                request._max_wait_ms = WHOLE_WAIT_MS  # noqa: SLF001
        return actions

    fetcher._get_actions_per_node = plan_patiently  # noqa: SLF001
