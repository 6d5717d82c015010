"""What cannot be answered because a month is archived is said so, never answered smaller (L5)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quill_runtime.problems import Problem

from quill_usage_ingest.domain.archived_month import MonthArchived
from quill_usage_ingest.ports import TooManyWindows


@asynccontextmanager
async def refusing_archived() -> AsyncIterator[None]:
    """Answer 409 naming the month and the command that brings it back."""
    try:
        yield
    except MonthArchived as error:
        raise Problem(409, "month_archived", str(error)) from error
    except TooManyWindows as error:
        raise Problem(400, "usage_date_range_too_long", str(error)) from error
