"""``quill usage compare``: do both generations of PostHog's reports say the same, so that v1 can be retired?"""

from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking
from quill_cli.printing import instant, one_line, show_table

PATH: Final = "/v1/generations/comparison"
COUNTERS_SHOWN: Final = 5


class State(StrEnum):
    """What came of comparing one organization and day."""

    EQUAL = "equal"
    EQUAL_ZERO = "equal_zero"
    DIFFERENT = "different"
    ONLY_V1 = "only_v1"
    ONLY_V2 = "only_v2"


Source = Annotated[str | None, typer.Option(help="Only this source, e.g. us.")]


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``compare`` and ``accept-difference`` to the group ``usage``."""
    _add_compare(group, connect)
    _add_accept(group, connect)


def _add_compare(group: typer.Typer, connect: Connect) -> None:
    @group.command("compare")
    def compare(
        *,
        start: Annotated[
            str | None, typer.Option("--from", help="First day, UTC; 31 days before the end if absent.")
        ] = None,
        end: Annotated[
            str | None, typer.Option("--to", help="First day not included, UTC; tomorrow if absent.")
        ] = None,
        state: Annotated[State | None, typer.Option(help="Only this state; all that do not agree if absent.")] = None,
        source: Source = None,
        needed_days: Annotated[
            int, typer.Option(min=1, max=366, help="Equal days in a row before v1 can be retired.")
        ] = 14,
        after: Annotated[str | None, typer.Option(help="Go on where the last page ended.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=500)] = 100,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Compare what v1 and v2 say of the same organizations and days, and whether v1 can be retired."""
        query = {
            "from": start,
            "to": end,
            "state": state and state.value,
            "source": source,
            "needed_days": needed_days,
            "after": after,
            "limit": limit,
        }
        with asking(connect, url, token) as gateway:
            gateway.get(PATH, **query).show(as_json=as_json, to_people=show_comparison)


def _add_accept(group: typer.Typer, connect: Connect) -> None:
    @group.command("accept-difference")
    def accept(
        organization: Annotated[str, typer.Argument(help="Organization id.")],
        day: Annotated[str, typer.Argument(help="UTC day, like 2026-10-05.")],
        source: Annotated[str, typer.Argument(help="Source, e.g. us.")],
        *,
        actor: Annotated[str, typer.Option(help="Who you are, e.g. your mail address.")],
        reason: Annotated[str, typer.Option(help="Why; kept with the difference.")],
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Accept a difference between v1 and v2; it counts as agreeing while it stays what it is."""
        asked = {"organization_id": organization, "day": day, "source": source, "actor": actor, "reason": reason}
        with asking(connect, url, token) as gateway:
            gateway.post(f"{PATH}/accept", asked).show(as_json=as_json, to_people=show_accepted)


def show_comparison(document: dict[str, Any]) -> None:
    """One line a source, the verdict in a sentence, then what does not agree."""
    show_table(
        f"v1 and v2, {document['from']} up to {document['to']}",
        ("source", "days", "equal days", "organization-days", "agreeing", "share", "accepted"),
        [
            (
                found["source"],
                found["days"],
                found["days_equal"],
                found["organization_days"],
                found["organization_days_agreeing"],
                found["share_agreeing"],
                found["accepted"],
            )
            for found in document["summary"]
        ],
        numbers=("days", "equal days", "organization-days", "agreeing", "share", "accepted"),
        whole=("source",),
        empty="Nothing was compared in these days: no source sends both generations.",
    )
    for found in document["summary"]:
        typer.echo(one_line(found["v1_retirement"]["sentence"]))
    if document["results"]:
        _show_days(document)


def _show_days(document: dict[str, Any]) -> None:
    show_table(
        "Organization-days",
        ("day", "source", "organization", "state", "counters: v1 / v2", "accepted"),
        [
            (
                found["day"],
                found["source"],
                found["organization_id"],
                found["state"],
                _differences(found),
                found["accepted"] and f"{found['accepted']['actor']}: {found['accepted']['reason']}",
            )
            for found in document["results"]
        ],
        whole=("day", "source"),
        empty="",
    )
    if document["next_after"]:
        typer.echo(f"There is more: add --after '{one_line(document['next_after'])}'")


def _differences(found: dict[str, Any]) -> str:
    shown = [f"{each['counter']}: {_said(each['v1'])} / {_said(each['v2'])}" for each in found["differences"]]
    left = found["differing_counters"] - min(COUNTERS_SHOWN, len(shown))
    return "; ".join(shown[:COUNTERS_SHOWN]) + (f"; {left} more" if left > 0 else "")


def _said(quantity: int | None) -> str:
    return "-" if quantity is None else f"{quantity:,}"


def show_accepted(document: dict[str, Any]) -> None:
    """What is accepted now, and by whom."""
    accepted = document["accepted"]
    typer.echo(
        one_line(
            f"{document['organization_id']}, {document['day']}, {document['source']}: {document['state']} accepted by"
            f" {accepted['actor']} on {instant(accepted['at'])}: {accepted['reason']}"
        )
    )
