"""``quill limits rules``: rule versions, their shadow runs, and which one decides."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from quill_cli.gateway import AsJson, Connect, Token, Url, asking
from quill_cli.printing import instant, one_line, show_facts, show_table

PATH: Final = "/v1/limits/rules"

Version = Annotated[int, typer.Argument(min=1, help="A number from `limits rules list`.")]
Actor = Annotated[str, typer.Option(help="Who you are, e.g. your mail address.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the change.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``limits rules`` with its commands."""
    rules = typer.Typer(help="The numbers limits are decided with, version by version.", no_args_is_help=True)
    _add_reading(rules, connect)
    _add_add(rules, connect)
    _add_command(
        rules, connect, "shadow", "Run a version beside the one in force and record where it would decide otherwise."
    )
    _add_command(rules, connect, "discard", "Stop a version's shadow run; what it found stays to be read.")
    _add_command(rules, connect, "activate", "Let a version decide from now on: everybody is decided anew.", asks=True)
    group.add_typer(rules, name="rules")


def _add_reading(group: typer.Typer, connect: Connect) -> None:
    @group.command("list")
    def list_(*, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """List the versions and what each does now."""
        with asking(connect, url, token) as gateway:
            gateway.get(PATH).show(as_json=as_json, to_people=show_versions)

    @group.command("show")
    def show(version: Version, *, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """Show one version's table; --json prints it so that it can be edited and added as another version."""
        with asking(connect, url, token) as gateway:
            gateway.get(f"{PATH}/{version}").show(as_json=as_json, to_people=show_version)

    @group.command("report")
    def report(
        version: Version,
        *,
        after: Annotated[str | None, typer.Option(help="Go on behind this place; see the end of a page.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=500, help="Differences on a page.")] = 100,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Say what a shadow run found: whose limits would stand otherwise, and why."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get(f"{PATH}/{version}/shadow", after=after, limit=limit)
            answer.show(as_json=as_json, to_people=show_report)


def _add_add(group: typer.Typer, connect: Connect) -> None:
    @group.command("add")
    def add(
        file: Annotated[
            Path,
            typer.Argument(exists=True, dir_okay=False, help="JSON: a whole table, as `rules show --json` has it."),
        ],
        *,
        actor: Actor,
        reason: Reason,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Add a table as the next version. It decides nothing until it is activated."""
        try:
            document = json.loads(file.read_bytes())
        except ValueError as error:
            raise typer.BadParameter(f"{file}: not JSON: {error}") from error
        if not isinstance(document, dict):
            raise typer.BadParameter(f"{file}: must hold a JSON object")
        # What `rules show --json` prints can be edited and given back as it is.
        table = document.get("document", document)
        with asking(connect, url, token) as gateway:
            answer = gateway.post(PATH, {"document": table, "actor": actor, "reason": reason})
            answer.show(as_json=as_json, to_people=show_added)


def _add_command(group: typer.Typer, connect: Connect, name: str, help_text: str, *, asks: bool = False) -> None:
    @group.command(name, help=help_text)
    def command(
        version: Version,
        *,
        actor: Actor,
        reason: Reason,
        yes: Yes = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        if asks and not yes:
            typer.confirm(f"Decide everybody's limits with rule version {version}?", abort=True)
        with asking(connect, url, token) as gateway:
            answer = gateway.post(f"{PATH}/{version}/{name}", {"actor": actor, "reason": reason})
            answer.show(as_json=as_json, to_people=show_standing)


def show_versions(document: dict[str, Any]) -> None:
    """One line per version."""
    show_table(
        "Limit rules",
        ("version", "status", "added", "by", "why"),
        [
            (str(each["version"]), each["status"], instant(each["created_at"]), each["created_by"], each["reason"])
            for each in document["results"]
        ],
        empty="There are no rule versions: was the database migrated?",
    )
    if not document["is_settled"]:
        _say("Organizations are still being decided anew.")


def show_version(document: dict[str, Any]) -> None:
    """Who added it, and its numbers."""
    table = document["document"]
    show_facts(
        f"Rule version {document['version']}",
        [
            ("status", document["status"]),
            ("added", instant(document["created_at"])),
            ("by", document["created_by"]),
            ("why", document["reason"]),
            ("near from", f"{table['near_percent']} %"),
            ("grace days by trust", _days(table["grace_days_by_trust"])),
        ],
    )
    show_table(
        "Meters; one that is not listed has nothing peculiar",
        ("meter", "buffer", "grace at least", "exempt", "paid by credits", "own grace days by trust"),
        [
            (
                meter,
                rules.get("buffer", 0),
                rules.get("minimum_grace_days", 0),
                rules.get("is_exempt", False),
                rules.get("is_paid_by_credits", False),
                _days(rules.get("grace_days_by_trust")),
            )
            for meter, rules in table["resources"].items()
        ],
        numbers=("buffer", "grace at least"),
        empty="No meter has anything peculiar.",
    )


def show_added(document: dict[str, Any]) -> None:
    """Its number, and what to do next."""
    what = "These numbers are" if document["is_repeat"] else "Added as"
    _say(f"{what} rule version {document['version']} ({document['status']}).")
    _say(f"next: quill limits rules shadow {document['version']} --actor … --reason …")


def show_standing(document: dict[str, Any]) -> None:
    """Which version decides, which runs in the shadow."""
    shadow, since = document["shadow"], instant(document["shadow_since"])
    show_facts(
        "Limit rules now",
        [
            ("in force", f"version {document['in_force']}"),
            (
                "in the shadow",
                None if shadow is None else f"version {shadow}, since {since}",
            ),
            ("everybody decided", document["is_settled"]),
        ],
    )


def show_report(document: dict[str, Any]) -> None:
    """A sentence, the numbers, and the differences."""
    _say(f"Rule version {document['version']}: {document['sentence']}.")
    if document["is_full"]:
        _say("The run keeps no further differences; the numbers below are a lower bound.")
    show_table(
        "By meter",
        ("meter", "in force", "shadow", "now", "ever"),
        [(g["usage_key"], g["state"], g["shadow_state"], g["now"], g["ever"]) for g in document["groups"]],
        numbers=("now", "ever"),
        empty="Both tables decide alike.",
    )
    if document["results"]:
        show_table(
            "One by one",
            ("organization", "from", "to", "in force says", "the shadow says"),
            [
                (
                    each["organization_id"],
                    instant(each["at"]),
                    instant(each["ended_at"]),
                    each["in_force"]["sentence"],
                    each["shadow"]["sentence"],
                )
                for each in document["results"]
            ],
            whole=("organization",),
            empty="",
        )
    if document["next_after"]:
        _say(f"next: --after '{document['next_after']}'")


def _days(by_trust: dict[str, int] | None) -> str | None:
    if by_trust is None:
        return None
    return ", ".join(f"{score}: {days}" for score, days in by_trust.items())


def _say(text: str) -> None:
    Console().print(Text(one_line(text)))
