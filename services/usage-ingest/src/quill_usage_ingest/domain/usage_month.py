"""Calendar months in UTC: what raw reports and cells are partitioned, archived and told apart by."""

from datetime import UTC, datetime


class InvalidMonth(ValueError):
    """Not a month like ``2025-03``."""


def month_of(instant: datetime) -> datetime:
    """The first instant of the UTC month that a UTC instant lies in."""
    return datetime(instant.year, instant.month, 1, tzinfo=UTC)


def month_after(month: datetime, count: int = 1) -> datetime:
    """The first instant of the month ``count`` months later, or earlier when negative."""
    years, index = divmod(month.month - 1 + count, 12)
    return datetime(month.year + years, index + 1, 1, tzinfo=UTC)


def month_name(month: datetime) -> str:
    """``2025-03``."""
    return f"{month.year:04d}-{month.month:02d}"


def month_named(name: str) -> datetime:
    """The month of ``2025-03``.

    Raises:
        InvalidMonth: the text is not one.
    """
    try:
        month = datetime.strptime(name, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidMonth(f"{name!r} is not a month; write it like 2025-03") from error
    if month_name(month) != name:
        raise InvalidMonth(f"{name!r} is not a month; write it like {month_name(month)}")
    return month
