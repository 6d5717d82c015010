"""``quill usage explain`` and ``as-of``: why a number is what it is, and what was known when (L5)."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import instant, one_line, show_table
from quill_cli.usage_events import show_event_explanation

Organization = Annotated[str, typer.Argument(help="Organization id.")]
At = Annotated[str | None, typer.Option("--at", help="An instant like 2026-10-05T12:00:00Z.")]


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``usage explain`` and ``usage as-of``."""

    @group.command("explain")
    def explain(
        organization: Organization,
        meter: Annotated[str, typer.Option(help="The meter, e.g. events.")],
        *,
        at: At = None,
        period_start: Annotated[str | None, typer.Option(help="The first instant of a billing period.")] = None,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Explain a period's number: its cells, the reports behind them, and how it moved."""
        with asking(connect, url, token) as gateway:
            path = f"/v1/usage/{segment(organization)}/explain"
            answer = gateway.get(path, meter=meter, at=at, period_start=period_start)
            answer.show(as_json=as_json, to_people=show_explanation)

    @group.command("as-of")
    def as_of(
        organization: Organization,
        at: Annotated[str, typer.Option("--at", help="An instant like 2026-10-05T12:00:00Z.")],
        *,
        meter: Annotated[str | None, typer.Option(help="Only this meter.")] = None,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Show each meter's total as it was known at an instant, beside what is known now."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get(f"/v1/usage/{segment(organization)}/as-of", at=at, meter=meter)
            answer.show(as_json=as_json, to_people=show_as_of)


def show_explanation(document: dict[str, Any]) -> None:
    """A sentence, the cells, the reports that do not hold one, and the timeline; of an event meter its hours."""
    if "event_type" in document:
        show_event_explanation(document)
        _show_parked(document["parked"])
        return
    Console().print(Text(one_line(document["sentence"])))
    Console().print(Text(one_line(document["freshness"]["sentence"])))
    reports = {report["id"]: report for report in document["reports"]}
    show_table(
        f"What {document['meter']} is made of ({document['counter']})",
        ("window", "source", "quantity", "completeness", "as of", "report", "intake", "arrived", "others"),
        [
            (
                instant(cell["window_start"]),
                cell["source"],
                cell["quantity"],
                cell["completeness"],
                instant(cell["as_of"]),
                _id(cell["held_by"]),
                _where(reports.get(cell["held_by"])),
                instant(reports[cell["held_by"]]["received_at"]) if cell["held_by"] else None,
                len(cell["others"]),
            )
            for cell in document["cells"]
        ],
        numbers=("quantity", "others"),
        empty="No report names this counter in the period.",
    )
    others = [(cell, other) for cell in document["cells"] for other in cell["others"]]
    if others:
        show_table(
            "What does not count, and why",
            ("window", "source", "quantity", "report", "why not", "by"),
            [
                (
                    instant(cell["window_start"]),
                    cell["source"],
                    other["quantity"],
                    _id(other["report"]),
                    other["why_not"].replace("_", " "),
                    _by(other["voided_by"]),
                )
                for cell, other in others
            ],
            numbers=("quantity",),
            empty="",
        )
    show_table(
        "How it moved",
        ("at", "what", "reports", "total", "change", "maximum", "by"),
        [
            (
                instant(step["at"]),
                step["kind"],
                ", ".join(str(each) for each in step["reports"]),
                step["after"]["to_date"],
                f"{step['after']['to_date'] - step['before']['to_date']:+,}",
                step["after"]["maximum"],
                _by(step["correction"]),
            )
            for step in document["timeline"]
            if step["after"] != step["before"] or step["correction"]
        ],
        numbers=("total", "change", "maximum"),
        empty="Nothing has moved it yet.",
    )
    _show_parked(document["parked"])


def _show_parked(parked: list[dict[str, Any]]) -> None:
    if parked:
        show_table(
            "Waiting as dead letters",
            ("id", "topic", "offset", "reason", "detail"),
            [
                (_id(each["id"]), each["topic"], _id(each["offset"]), each["reason_code"], each["detail"])
                for each in parked
            ],
            empty="",
        )


def show_as_of(document: dict[str, Any]) -> None:
    """Each meter then and now."""
    period = f"{instant(document['period_start'])} to {instant(document['period_end'])}"
    show_table(
        f"Known at {instant(document['at'])} of {document['organization_id']}, {period}",
        ("meter", "total then", "maximum then", "total now", "moved since"),
        [
            (meter, held["to_date"], held["maximum"], held["now"]["to_date"], f"{held['moved_since']:+,}")
            for meter, held in document["meters"].items()
        ],
        numbers=("total then", "maximum then", "total now", "moved since"),
        empty="Nothing was known of this period at that instant, and nothing is known now.",
    )


def _id(value: int | None) -> str | None:
    """Ids are copied, so they get no separators."""
    return None if value is None else str(value)


def _where(report: dict[str, Any] | None) -> str | None:
    if report is None:
        return None
    if report["topic"] is None:
        return str(report["intake"])
    return f"{report['intake']} {report['partition']}/{report['offset']}"


def _by(correction: dict[str, Any] | None) -> str | None:
    return f"{correction['actor']} ({correction['correction_id']}): {correction['reason']}" if correction else None
