"""``quill limits history`` and ``what-if``: how a limit moved, and how it would."""

import json
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import instant, one_line, show_table

NONE: Final = "none"

Organization = Annotated[str, typer.Argument(help="Organization id.")]
Meter = Annotated[str, typer.Argument(help="Meter, e.g. events.")]


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``limits history`` and ``limits what-if``."""
    _add_history(group, connect)
    _add_what_if(group, connect)


def _add_history(group: typer.Typer, connect: Connect) -> None:
    @group.command("history")
    def history(
        organization: Organization,
        meter: Meter,
        *,
        start: Annotated[str | None, typer.Option("--from", help="First instant, e.g. 2026-10-01T00:00:00Z.")] = None,
        end: Annotated[str | None, typer.Option("--to", help="The first instant not included.")] = None,
        after: Annotated[int, typer.Option(min=0, help="Go on behind this decision; see the end of a page.")] = 0,
        limit: Annotated[int, typer.Option(min=1, max=1_000, help="Decisions on a page.")] = 100,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Show every change of a limit as a timeline, oldest first."""
        with asking(connect, url, token) as gateway:
            path = f"/v1/limits/{segment(organization)}/history"
            answer = gateway.get(path, **{"meter": meter, "from": start, "to": end, "after": after, "limit": limit})
            answer.show(as_json=as_json, to_people=show_history)


def _add_what_if(group: typer.Typer, connect: Connect) -> None:
    @group.command("what-if")
    def what_if(
        organization: Organization,
        meter: Meter,
        *,
        scope: Annotated[str | None, typer.Option(help="team:<id> or project:<name> instead of the whole.")] = None,
        quota: Annotated[str | None, typer.Option(help="Units, or none for unlimited.")] = None,
        billing_limit_usd: Annotated[str | None, typer.Option(help="Whole dollars, or none.")] = None,
        subscribed: Annotated[
            bool | None, typer.Option("--subscribed/--not-subscribed", help="With or without a subscription.")
        ] = None,
        trust_score: Annotated[str | None, typer.Option(help="0, 3, 7, 10, 15 or none.")] = None,
        never_drop_data: Annotated[bool | None, typer.Option("--never-drop-data/--may-drop-data")] = None,
        usage: Annotated[str | None, typer.Option(help="Units used by now.")] = None,
        usage_per_day: Annotated[str | None, typer.Option(help="From now on; the present rate if absent.")] = None,
        trial_until: Annotated[str | None, typer.Option(help="End of a free trial (an instant), or none.")] = None,
        rules: Annotated[int | None, typer.Option(min=1, help="Rule version; the one in force if absent.")] = None,
        periods: Annotated[int, typer.Option(min=1, max=12, help="Billing periods to look ahead.")] = 1,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Say when a meter would be limited were things otherwise. Nothing is changed."""
        assumed: dict[str, object] = {
            "scope": scope,
            "quota": _number(quota),
            "billing_limit_usd": _number(billing_limit_usd),
            "subscribed": subscribed,
            "trust_score": _number(trust_score),
            "never_drop_data": never_drop_data,
            "usage": _number(usage),
            "usage_per_day": _number(usage_per_day),
            "free_trial_until": trial_until,
            "rule_version": rules,
        }
        asked = {name: None if value == NONE else value for name, value in assumed.items() if value is not None}
        with asking(connect, url, token) as gateway:
            path = f"/v1/limits/{segment(organization)}/what-if"
            answer = gateway.post(path, {"meter": meter, "periods": periods, **asked})
            answer.show(as_json=as_json, to_people=show_what_if)


def show_history(document: dict[str, Any]) -> None:
    """One line per change of state or of its reason."""
    changes = [*document["transitions"], *document["reason_changes"]]
    show_table(
        "How the limit moved",
        ("#", "at", "state", "until", "usage", "quota", "why", "rule"),
        [
            (
                each["sequence"],
                instant(each["at"]),
                each.get("to_state") or f"still {each['state']}",
                instant(each.get("limited_until") or each.get("suspended_until")),
                each["evidence"]["usage"],
                _quota(each["evidence"]["quota"]),
                each["sentence"],
                f"{each['rule']} v{each['rule_version']}",
            )
            for each in sorted(changes, key=lambda each: (each["sequence"], each.get("number", 0)))
        ],
        numbers=("#", "usage", "quota"),
        empty="Nothing was decided in that time.",
    )
    if document["next_after"]:
        Console().print(Text(f"next: --after {document['next_after']}"))


def show_what_if(document: dict[str, Any]) -> None:
    """The sentence, and each change on the way."""
    Console().print(Text(one_line(document["sentence"])))
    if document["assumed"]:
        Console().print(Text(one_line(f"assuming {json.dumps(document['assumed'])}")))
    show_table(
        f"{document['usage_key']} of {_whose(document)} until {instant(document['until'])}",
        ("at", "state", "until", "usage", "why", "rule"),
        [
            (
                instant(each["at"]),
                each["state"],
                instant(each["limited_until"] or each["suspended_until"]),
                each["usage"],
                each["sentence"],
                f"{each['rule']} v{each['rule_version']}",
            )
            for each in document["timeline"]
        ],
        numbers=("usage",),
        empty="",
    )


def _whose(document: dict[str, Any]) -> str:
    """The organization, or its team or project that was asked about."""
    scope, organization = document["scope"], document["organization_id"]
    return str(organization) if scope == "organization" else f"{scope} of {organization}"


def _number(text: str | None) -> int | str | None:
    """An integer, or the word none; anything else is told by the service, which knows the bounds."""
    if text is None or text == NONE:
        return text
    try:
        return int(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither a whole number nor {NONE}") from error


def _quota(quota: int | None) -> int | str:
    return "unlimited" if quota is None else quota
