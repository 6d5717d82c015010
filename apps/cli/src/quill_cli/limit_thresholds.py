"""``quill limits thresholds``: at what share of a quota somebody is told."""

from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import show_table

Organization = Annotated[str, typer.Argument(help="Organization id.")]


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``limits thresholds`` with its commands."""
    thresholds = typer.Typer(help="At what share of a quota somebody is told.", no_args_is_help=True)
    _add_show(thresholds, connect)
    _add_set(thresholds, connect)
    group.add_typer(thresholds, name="thresholds")


def _add_show(group: typer.Typer, connect: Connect) -> None:
    @group.command("show")
    def show(organization: Organization, *, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """Show the settings and what was told in this billing period."""
        with asking(connect, url, token) as gateway:
            gateway.get(_path(organization)).show(as_json=as_json, to_people=show_thresholds)


def _add_set(group: typer.Typer, connect: Connect) -> None:
    @group.command("set")
    def set_(
        organization: Organization,
        percents: Annotated[
            list[int] | None, typer.Argument(min=1, max=100, help="Percent of the quota, e.g. 50 80 100.")
        ] = None,
        *,
        actor: Annotated[str, typer.Option(help="Who you are, e.g. your mail address.")],
        reason: Annotated[str, typer.Option(help="Why; kept with the change.")],
        meter: Annotated[str | None, typer.Option(help="Only this meter; all without their own if absent.")] = None,
        default: Annotated[bool, typer.Option("--default", help="Back to the default.")] = False,
        nothing: Annotated[bool, typer.Option("--nothing", help="Tell nothing.")] = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Tell at other shares; those that are reached already are told at once."""
        if [bool(percents), default, nothing].count(True) != 1:
            raise typer.BadParameter("give percents, or --default, or --nothing")
        asked = {
            "meter": meter,
            "percents": None if default else list(percents or []),
            "actor": actor,
            "reason": reason,
        }
        with asking(connect, url, token) as gateway:
            gateway.put(_path(organization), asked).show(as_json=as_json, to_people=show_thresholds)


def show_thresholds(document: dict[str, Any]) -> None:
    """One line per meter with a setting or news, and one for all the others."""
    meters, told = document["meters"], document["told"]
    show_table(
        f"Thresholds of {document['organization_id']}, in percent of the quota",
        ("meter", "tell at", "told in this billing period"),
        [
            (meter, _list(meters.get(meter, document["percents"])), _list(told.get(meter, [])))
            for meter in sorted({*meters, *told})
        ]
        + [("all others", _list(document["percents"]), None)],
        empty="",
    )


def _path(organization: str) -> str:
    return f"/v1/limits/{segment(organization)}/thresholds"


def _list(percents: list[int]) -> str:
    return ", ".join(map(str, percents)) or "nothing"
