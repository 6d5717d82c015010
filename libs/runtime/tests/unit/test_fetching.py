"""Fetches that ask for everything may be held; those that leave a partition out come back soon."""

from types import SimpleNamespace

import pytest
from aiokafka.protocol.fetch import FetchRequest
from quill_runtime.fetching import PARTIAL_WAIT_MS, WHOLE_WAIT_MS, hold_whole_fetches


class Fetcher:
    """Plans one fetch, as aiokafka's does."""

    def __init__(self, unread: dict[str, object]) -> None:
        self._records = unread

    def _get_actions_per_node(self, assignment):
        del assignment
        request = FetchRequest(PARTIAL_WAIT_MS, 1, 1_000, 0, [("topic", [(0, 5, 1_000)])])
        return [(1, request)], {}, 0.2, False, []


@pytest.mark.parametrize(("unread", "wait_ms"), [({}, WHOLE_WAIT_MS), ({"topic-1": object()}, PARTIAL_WAIT_MS)])
def test_only_a_fetch_that_leaves_nothing_out_is_held(unread, wait_ms):
    fetcher = Fetcher(unread)
    hold_whole_fetches(SimpleNamespace(_fetcher=fetcher))
    requests, *rest = fetcher._get_actions_per_node(None)
    assert [(node, request._max_wait_ms) for node, request in requests] == [(1, wait_ms)]
    assert rest == [{}, 0.2, False, []]
