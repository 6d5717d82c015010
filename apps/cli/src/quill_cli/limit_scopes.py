"""``quill limits scopes``: what the teams and projects of an organization may use."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import instant, show_table

Organization = Annotated[str, typer.Argument(help="Organization id.")]


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``limits scopes`` with its commands."""
    scopes = typer.Typer(help="What teams and projects may use, beside the organization.", no_args_is_help=True)
    _add_show(scopes, connect)
    _add_set(scopes, connect)
    group.add_typer(scopes, name="scopes")


def _add_show(group: typer.Typer, connect: Connect) -> None:
    @group.command("show")
    def show(organization: Organization, *, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """Show each limit and where it stands; --json prints it so that it can be edited and set."""
        with asking(connect, url, token) as gateway:
            gateway.get(_path(organization)).show(as_json=as_json, to_people=show_scopes)


def _add_set(group: typer.Typer, connect: Connect) -> None:
    @group.command("set")
    def set_(
        organization: Organization,
        file: Annotated[
            Path,
            typer.Argument(exists=True, dir_okay=False, help="JSON: the whole list, as `scopes show --json` has it."),
        ],
        *,
        actor: Annotated[str, typer.Option(help="Who you are, e.g. your mail address.")],
        reason: Annotated[str, typer.Option(help="Why; kept with the change.")],
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Put the whole list in place of the one the file was made from; it holds at once."""
        try:
            document = json.loads(file.read_bytes())
        except ValueError as error:
            raise typer.BadParameter(f"{file}: not JSON: {error}") from error
        if not isinstance(document, dict):
            raise typer.BadParameter(f"{file}: must hold a JSON object")
        if document.get("organization_id", organization) != organization:
            raise typer.BadParameter(f"{file}: holds the scopes of {document['organization_id']}, not {organization}")
        # What `show --json` prints can be edited and given back as it is; where limits stand is no setting.
        settings = {name: value for name, value in document.items() if name not in ("organization_id", "states")}
        asked = {**settings, "actor": actor, "reason": reason}
        with asking(connect, url, token) as gateway:
            gateway.put(_path(organization), asked).show(as_json=as_json, to_people=show_scopes)


def show_scopes(document: dict[str, Any]) -> None:
    """One line per scope and meter."""
    pooled = {scope["id"]: ", ".join(scope["teams"]) for scope in document["scopes"] if scope["kind"] == "project"}
    show_table(
        f"Scopes of {document['organization_id']}, revision {document['revision']}",
        ("scope", "teams", "meter", "state", "used", "limit in units", "until"),
        [
            (
                scope,
                pooled.get(scope),
                usage_key,
                limit["state"],
                limit["usage"],
                "none" if limit["quota"] is None else limit["quota"],
                instant(limit["limited_until"]),
            )
            for scope, meters in document["states"].items()
            for usage_key, limit in meters.items()
        ],
        empty="no team or project has a limit of its own",
    )


def _path(organization: str) -> str:
    return f"/v1/limits/{segment(organization)}/scopes"
