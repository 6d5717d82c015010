"""``quill usage backfill``: a file of reports, with a dry run; it can be stopped and started again (L4)."""

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from quill_cli.gateway import Connect, Gateway, Refused, Token, Url, asking
from quill_cli.printing import show_table

BATCH_LINES: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
LINE_BYTES_MAX: Final = 4 * 1024 * 1024
WRONG_BODY: Final = (400, 413, 422)
"""The batch was read and found wrong: one of its lines is at fault, and halving finds it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file, counted from 1."""

    number: int
    text: bytes


@dataclass(slots=True)
class Place:
    """How far a file has been sent, kept beside it until it is through."""

    size: int
    source: str | None
    day: str | None
    as_of: str
    lines_done: int = 0


@dataclass(slots=True)
class Tally:
    """What became of the lines."""

    outcomes: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``usage backfill``."""

    @group.command("backfill")
    def backfill(
        file: Annotated[
            Path,
            typer.Argument(exists=True, dir_okay=False, readable=True, help="JSON lines, plain or .gz."),
        ],
        *,
        source: Annotated[str | None, typer.Option(help="Who counted, e.g. us; needed for PostHog's lines.")] = None,
        day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only lines of this UTC day.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would change.")] = False,
        url: Url = None,
        token: Token = None,
    ) -> None:
        """Send a file of usage reports; stopped half-way, the same command goes on where it was."""
        named_day = day.date() if day else None
        with asking(connect, url, token) as gateway:
            tally, refused = run(gateway, file, source=source, day=named_day, dry_run=dry_run)
        show_tally(tally, dry_run=dry_run)
        if refused is not None:
            Console().print(f"Refused lines, each with its reason: {refused}", markup=False, soft_wrap=True)
            raise typer.Exit(1)


def run(
    gateway: Gateway, file: Path, *, source: str | None, day: date | None, dry_run: bool
) -> tuple[Tally, Path | None]:
    """Send the file; returns what became of its lines, and where the refused ones stand, if any.

    Raises:
        Refused | Unanswered: what was sent stays, and the next run goes on from there.
    """
    place_file = file.with_name(f"{file.name}.progress")
    refused_file = file.with_name(f"{file.name}.refused.jsonl")
    place = _place(place_file, file, source=source, day=day, dry_run=dry_run)
    if not place.lines_done:
        refused_file.unlink(missing_ok=True)
    tally = Tally()
    has_refused = False
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, file.open("rb") as raw:
        task = progress.add_task("dry run" if dry_run else "sending", total=file.stat().st_size)
        for batch in _batches(_lines(raw, is_gzip=file.suffix == ".gz"), after=place.lines_done):
            with refused_file.open("a", encoding="utf-8") as reasons:
                _send(gateway, batch, place, tally=tally, reasons=reasons, dry_run=dry_run)
            place.lines_done = batch[-1].number
            if not dry_run:
                place_file.write_text(json.dumps(asdict(place)), encoding="utf-8")
            progress.update(task, completed=raw.tell())
    place_file.unlink(missing_ok=True)
    has_refused = refused_file.exists() and refused_file.stat().st_size > 0
    if not has_refused:
        refused_file.unlink(missing_ok=True)
    return tally, refused_file if has_refused else None


def show_tally(tally: Tally, *, dry_run: bool) -> None:
    """How many lines had which outcome, and how far each counter moved."""
    would = "would be " if dry_run else ""
    show_table(
        "Nothing was changed: this was a dry run" if dry_run else "Backfilled",
        ("outcome", "lines"),
        [(f"{would}{outcome}", count) for outcome, count in sorted(tally.outcomes.items())],
        numbers=("lines",),
        empty="The file holds no lines that were not sent before.",
    )
    if tally.moved:
        show_table(
            "Counters that move" if dry_run else "Counters that moved",
            ("counter", "by"),
            sorted(tally.moved.items()),
            numbers=("by",),
            empty="",
        )


def _place(place_file: Path, file: Path, *, source: str | None, day: date | None, dry_run: bool) -> Place:
    """Where an earlier run of the same file and options stopped, else the beginning."""
    fresh = Place(file.stat().st_size, source, day.isoformat() if day else None, datetime.now(UTC).isoformat())
    if dry_run or not place_file.exists():
        return fresh
    try:
        found = Place(**json.loads(place_file.read_bytes()))
    except (ValueError, TypeError):
        return fresh
    return found if (found.size, found.source, found.day) == (fresh.size, fresh.source, fresh.day) else fresh


def _lines(raw: Any, *, is_gzip: bool) -> Iterator[Line]:
    lines: Any = gzip.GzipFile(fileobj=raw) if is_gzip else raw
    number = 0
    while text := lines.readline(LINE_BYTES_MAX + 1):
        number += 1
        while not text.endswith(b"\n") and len(text) > LINE_BYTES_MAX:
            rest = lines.readline(LINE_BYTES_MAX)
            if not rest or rest.endswith(b"\n"):
                break
        if text.strip():
            yield Line(number, text.strip())


def _batches(lines: Iterable[Line], *, after: int) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if line.number <= after:
            continue
        if batch and (len(batch) == BATCH_LINES or size + len(line.text) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.text)
    if batch:
        yield batch


def _send(gateway: Gateway, batch: list[Line], place: Place, *, tally: Tally, reasons: TextIO, dry_run: bool) -> None:
    """Send a batch; one that is refused as a whole is halved until the line at fault stands alone."""
    readable = _readable(batch, tally, reasons)
    if not readable:
        return
    try:
        answer = gateway.post_bytes("/v1/usage/reports", _body(readable, place, dry_run=dry_run))
    except Refused as refused:
        if refused.status not in WRONG_BODY:
            raise
        if len(readable) == 1:
            _refuse(readable[0], {"code": "refused", "detail": str(refused), "attr": None}, tally, reasons)
            return
        middle = len(readable) // 2
        for half in (readable[:middle], readable[middle:]):
            _send(gateway, half, place, tally=tally, reasons=reasons, dry_run=dry_run)
        return
    for line, result in zip(readable, answer.document["results"], strict=True):
        if result["outcome"] == "refused":
            _refuse(line, result, tally, reasons)
            continue
        tally.outcomes[result["outcome"]] += 1
        for counter, change in result["changes"].items():
            tally.moved[counter] += change["after"] - change["before"]


def _readable(batch: list[Line], tally: Tally, reasons: TextIO) -> list[Line]:
    """The lines that are JSON; the others would spoil the whole batch."""
    readable = []
    for line in batch:
        wrong = _wrong(line.text)
        if wrong is None:
            readable.append(line)
        else:
            _refuse(line, {"code": "not_json", "detail": wrong, "attr": None}, tally, reasons)
    return readable


def _body(lines: list[Line], place: Place, *, dry_run: bool) -> bytes:
    """The batch with each line byte for byte as the file has it: those bytes are kept."""
    options = {"dry_run": dry_run, "source": place.source, "day": place.day, "as_of": place.as_of}
    head = json.dumps({name: value for name, value in options.items() if value is not None})[:-1].encode()
    return head + b', "reports": [' + b",".join(line.text for line in lines) + b"]}"


def _wrong(text: bytes) -> str | None:
    if len(text) > LINE_BYTES_MAX:
        return f"the line is longer than {LINE_BYTES_MAX} bytes"
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON: {error}"
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refuse(line: Line, result: dict[str, Any], tally: Tally, reasons: TextIO) -> None:
    tally.outcomes["refused"] += 1
    reason = {name: result[name] for name in ("code", "detail", "attr")}
    text = line.text[:LINE_BYTES_MAX].decode("utf-8", "replace")
    reasons.write(json.dumps({"line": line.number, **reason, "text": text}) + "\n")
