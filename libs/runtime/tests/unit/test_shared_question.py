"""Many who ask at once cause few requests, and nobody gets an answer to a request from before they came."""

import asyncio

import pytest
from quill_runtime.shared_question import SharedQuestion


class Log:
    """A log whose end is asked for; an answer takes a moment and tells the end at its beginning."""

    def __init__(self, *, fails: bool = False) -> None:
        self.end = 0
        self.requests = 0
        self.fails = fails

    async def ask(self) -> int:
        self.requests += 1
        end = self.end
        await asyncio.sleep(0.01)
        if self.fails:
            raise ConnectionError("no broker")
        return end


async def test_all_who_ask_at_once_share_one_request():
    log = Log()
    question = SharedQuestion(log.ask)
    assert await asyncio.gather(*(question.answer() for _ in range(200))) == [0] * 200
    assert log.requests == 1


async def test_nobody_shares_a_request_that_was_sent_before_they_asked():
    """D16: what was written before a question must be in its answer."""
    log = Log()
    question = SharedQuestion(log.ask)
    early = asyncio.create_task(question.answer())
    await asyncio.sleep(0.005)
    log.end = 1
    late = [asyncio.create_task(question.answer()) for _ in range(50)]
    assert await early == 0
    assert await asyncio.gather(*late) == [1] * 50
    assert log.requests == 2


async def test_a_caller_that_gives_up_disturbs_no_other():
    log = Log()
    question = SharedQuestion(log.ask)
    patient = asyncio.create_task(question.answer())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await question.answer()
    assert await patient == 0
    assert await question.answer() == 0
    assert log.requests == 2


async def test_a_failed_request_fails_for_those_who_shared_it_and_not_for_the_next():
    log = Log(fails=True)
    question = SharedQuestion(log.ask)
    answers = await asyncio.gather(*(question.answer() for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError] * 3
    log.fails = False
    assert await question.answer() == 0
