"""``quill licenses``: issue, look at and withdraw licenses."""

import secrets
from enum import StrEnum
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Unanswered, Url, asking, segment, stop
from quill_cli.printing import instant, show_facts, show_table


class LicenseType(StrEnum):
    """What a license stands for."""

    SCALE = "scale"
    ENTERPRISE = "enterprise"
    CLOUD = "cloud"


def commands(connect: Connect) -> typer.Typer:
    """``licenses issue``, ``show``, ``revoke``."""
    group = typer.Typer(help="Issue, look at and withdraw licenses.", no_args_is_help=True)

    @group.command("issue")
    def issue(
        *,
        email: Annotated[str, typer.Option(help="Where the key is mailed.")],
        organization: Annotated[str, typer.Option(help="Name of the organization, as its people read it.")],
        kind: Annotated[
            LicenseType, typer.Option("--type", help="cloud stands for a whole region and needs an operator's token.")
        ] = LicenseType.SCALE,
        source: Annotated[str | None, typer.Option(help="Name of the instance in reports; made up if absent.")] = None,
        idempotency_key: Annotated[
            str | None, typer.Option(help="Name of this signup: asking again with it makes no second license.")
        ] = None,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Issue a license. The key is shown once and mailed."""
        named = idempotency_key or secrets.token_urlsafe(24)
        body = {"email": email, "organization_name": organization, "type": kind.value}
        with asking(connect, url, token) as gateway:
            try:
                answer = gateway.post(
                    "/v1/licenses", body if source is None else {**body, "source": source}, Idempotency_Key=named
                )
            except Unanswered as unanswered:
                stop(str(unanswered), advice=f"a license may exist; repeat with --idempotency-key {named} to find out")
            answer.show(as_json=as_json, to_people=show_issued)

    @group.command("show")
    def show(
        license_id: Annotated[str, typer.Argument(help="License id: the part of the key before `::`.")],
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Show a license, who uses it, whether its mail went out, and every change of it."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get(f"/v1/licenses/{segment(license_id)}")
            answer.show(as_json=as_json, to_people=show_license)

    @group.command("revoke")
    def revoke(
        license_id: Annotated[str, typer.Argument(help="License id: the part of the key before `::`.")],
        reason: Annotated[str, typer.Option(help="Why; kept with your name.")],
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Withdraw a license for ever: its tokens are refused everywhere within seconds."""
        with asking(connect, url, token) as gateway:
            answer = gateway.post(f"/v1/licenses/{segment(license_id)}/revoke", {"reason": reason})
            answer.show(as_json=as_json, to_people=show_revoked)

    return group


def show_issued(document: dict[str, Any]) -> None:
    """The one time that a key is shown."""
    show_facts(
        f"License {document['license_id']}",
        [
            ("type", document["type"]),
            ("source", document["source"]),
            ("mailed to", document["email"]),
            ("issued at", instant(document["issued_at"])),
        ],
    )
    # On a line of its own and never folded into a table: it is there to be copied.
    typer.echo(document["license_key"])
    typer.echo("That is the license key. It is not shown again; it is on its way by mail.", err=True)


def show_revoked(document: dict[str, Any]) -> None:
    """That it is over, since when and why."""
    show_facts(
        f"License {document['license_id']}",
        [
            ("status", document["status"]),
            ("revoked at", instant(document["revoked_at"])),
            ("reason", document["revocation_reason"]),
        ],
    )


def show_license(document: dict[str, Any]) -> None:
    """The license, its organizations and its history (L20)."""
    mail = document["mail"]
    show_facts(
        f"License {document['license_id']}",
        [
            ("status", document["status"]),
            ("type", document["type"]),
            ("source", document["source"]),
            ("for", document["organization_name"]),
            ("e-mail", document["email"]),
            ("issued at", instant(document["issued_at"])),
            ("revoked at", instant(document["revoked_at"])),
            ("reason", document["revocation_reason"]),
            ("mail", None if mail is None else f"{mail['status']}, attempts: {mail['attempts']}"),
            ("mail problem", None if mail is None else mail["error"]),
        ],
    )
    show_table(
        "Used by",
        ("organization", "name", "first seen"),
        [(a["organization_id"], a["organization_name"], instant(a["first_seen_at"])) for a in document["activations"]],
        empty="No organization uses it yet.",
    )
    show_table(
        "What happened",
        ("when", "what", "who", "before", "after"),
        [
            (
                instant(change["at"]),
                change["type"],
                change["actor"],
                _fields(change["before"]),
                _fields(change["after"]),
            )
            for change in document["history"]
        ],
        empty="Nothing.",
    )


def _fields(values: dict[str, Any] | None) -> str | None:
    return None if values is None else ", ".join(f"{name}: {value}" for name, value in values.items())
