"""``quill licenses attach`` and ``detach``: more instances on one account, whose usage adds up."""

from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import show_facts


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``attach`` and ``detach`` to the group ``licenses``."""

    @group.command("attach")
    def attach(
        organization: Annotated[str, typer.Argument(help="Organization id of the account.")],
        license_id: Annotated[str, typer.Argument(help="License id: the part of the key before `::`.")],
        *,
        reason: Annotated[str, typer.Option(help="Why; kept with your name.")],
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Bill one more instance on an account: what it reports adds up with the rest."""
        with asking(connect, url, token) as gateway:
            answer = gateway.post(
                f"/v1/customers/{segment(organization)}/licenses", {"license_id": license_id, "reason": reason}
            )
            answer.show(as_json=as_json, to_people=show_account)

    @group.command("detach")
    def detach(
        organization: Annotated[str, typer.Argument(help="Organization id of the account.")],
        license_id: Annotated[str, typer.Argument(help="License id: the part of the key before `::`.")],
        *,
        reason: Annotated[str, typer.Option(help="Why; kept with your name.")],
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Stop billing an instance on an account; what it reported stays counted."""
        with asking(connect, url, token) as gateway:
            answer = gateway.post(
                f"/v1/customers/{segment(organization)}/licenses/{segment(license_id)}/detach", {"reason": reason}
            )
            answer.show(as_json=as_json, to_people=show_account)


def show_account(document: dict[str, Any]) -> None:
    """Which licenses the account has now."""
    show_facts(
        f"Account {document['organization_id']}",
        [
            ("own license", document["license_id"]),
            ("further licenses", ", ".join(document["further_license_ids"])),
            ("revision", document["revision"]),
        ],
    )
