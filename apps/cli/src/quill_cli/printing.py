"""What people read: tables whose cells are data, never markup or control codes of somebody else's making."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text


def one_line(value: object) -> str:
    """Text without line breaks and terminal control codes: names and record bytes come from strangers."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def many_lines(text: str) -> str:
    """The same for a block of text that keeps its lines."""
    return "\n".join(one_line(line) for line in text.split("\n"))


def cell(value: object) -> Text:
    """A value as a cell: integers with separators, nothing as a dash."""
    match value:
        case None | "":
            return Text("-", style="dim")
        case bool():
            return Text("yes" if value else "no")
        case int():
            return Text(f"{value:,}")
        case _:
            return Text(one_line(value))


def instant(text: str | None) -> str | None:
    """An instant of the API, to the second and in UTC, for reading."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%SZ")
    except ValueError:
        return text


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    whole: Sequence[str] = (),
    empty: str,
) -> None:
    """Print a table, or the sentence ``empty`` when there is nothing to show.

    Args:
        title: What it is about.
        columns: Column heads.
        rows: Values in the order of the columns.
        numbers: Heads of columns that align right and are never broken.
        whole: Heads of columns that people copy from, which are never broken.
        empty: What to say, with the next step, when there are no rows.
    """
    table = Table(title=Text(one_line(title)), title_justify="left")
    for column in columns:
        is_number = column in numbers
        table.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=is_number or column in whole,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    if table.row_count:
        Console().print(table)
    else:
        Console().print(Text(one_line(empty)))


def show_facts(title: str, facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values under each other."""
    table = Table(title=Text(one_line(title)), title_justify="left", show_header=False)
    table.add_column("fact")
    table.add_column("value", overflow="fold")
    for name, value in facts:
        table.add_row(cell(name), cell(value))
    Console().print(table)
