"""``quill limits webhooks``: who is told of limits over HTTP, what is on its way, what failed."""

from typing import Annotated, Any, Final

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import instant, show_facts, show_table

PATH: Final = "/v1/limits/webhooks"

Endpoint = Annotated[str, typer.Argument(help="An id from `limits webhooks list`.")]
Actor = Annotated[str, typer.Option(help="Who you are, e.g. your mail address.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the change.")]


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``limits webhooks`` with its commands."""
    webhooks = typer.Typer(help="Who is told of limits over HTTP.", no_args_is_help=True)
    _add_reading(webhooks, connect)
    _add_add(webhooks, connect)
    _add_rotate(webhooks, connect)
    _add_switch(webhooks, connect, "enable", "Deliver again, what waited first; past failures are forgiven.", to=True)
    _add_switch(webhooks, connect, "disable", "Deliver nothing; what is on its way waits up to three days.", to=False)
    _add_remove(webhooks, connect)
    _add_replay(webhooks, connect)
    group.add_typer(webhooks, name="webhooks")


def _add_reading(group: typer.Typer, connect: Connect) -> None:
    @group.command("list")
    def list_(*, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """List the endpoints and how they are doing."""
        with asking(connect, url, token) as gateway:
            gateway.get(PATH).show(as_json=as_json, to_people=show_endpoints)

    @group.command("show")
    def show(endpoint: Endpoint, *, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """Show one endpoint and everything that was changed about it."""
        with asking(connect, url, token) as gateway:
            gateway.get(f"{PATH}/{segment(endpoint)}").show(as_json=as_json, to_people=show_endpoint)

    @group.command("deliveries")
    def deliveries(
        *,
        endpoint: Annotated[str | None, typer.Option(help="Only this endpoint's.")] = None,
        status: Annotated[str | None, typer.Option(help="pending, delivered or failed; all if absent.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 100,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """List deliveries, newest first; --status failed is what somebody should look at."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get(f"{PATH}/deliveries", endpoint_id=endpoint, status=status, limit=limit)
            answer.show(as_json=as_json, to_people=show_deliveries)


def _add_add(group: typer.Typer, connect: Connect) -> None:
    @group.command("add")
    def add(
        address: Annotated[str, typer.Argument(help="Where to deliver, e.g. https://example.org/quill.")],
        *,
        actor: Actor,
        reason: Reason,
        event: Annotated[
            list[str] | None, typer.Option(help="limits.transition or limits.threshold; both if absent.")
        ] = None,
        organization: Annotated[str | None, typer.Option(help="Only this organization's; all if absent.")] = None,
        description: Annotated[str, typer.Option(help="For people.")] = "",
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Deliver to another address; prints its secret, once, alone on the last line."""
        asked: dict[str, object] = {"url": address, "description": description, "actor": actor, "reason": reason}
        if event:
            asked["events"] = list(event)
        if organization is not None:
            asked["organization_id"] = organization
        with asking(connect, url, token) as gateway:
            gateway.post(PATH, asked).show(as_json=as_json, to_people=show_secret)


def _add_rotate(group: typer.Typer, connect: Connect) -> None:
    @group.command("rotate")
    def rotate(
        endpoint: Endpoint,
        *,
        actor: Actor,
        reason: Reason,
        overlap_hours: Annotated[
            int, typer.Option(min=0, max=168, help="How long the present secret signs beside the new one.")
        ] = 24,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Make another secret and print it, once; until the overlap ends both sign."""
        asked = {"overlap_hours": overlap_hours, "actor": actor, "reason": reason}
        with asking(connect, url, token) as gateway:
            gateway.post(f"{PATH}/{segment(endpoint)}/rotate", asked).show(as_json=as_json, to_people=show_secret)


def _add_switch(group: typer.Typer, connect: Connect, name: str, text: str, *, to: bool) -> None:
    @group.command(name, help=text)
    def switch(
        endpoint: Endpoint,
        *,
        actor: Actor,
        reason: Reason,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        asked = {"enabled": to, "actor": actor, "reason": reason}
        with asking(connect, url, token) as gateway:
            answer = gateway.patch(f"{PATH}/{segment(endpoint)}", asked)
            answer.show(as_json=as_json, to_people=show_endpoint)


def _add_remove(group: typer.Typer, connect: Connect) -> None:
    @group.command("remove")
    def remove(
        endpoint: Endpoint,
        *,
        actor: Actor,
        reason: Reason,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Deliver there no more; what is on its way has failed, and the secret is lost."""
        if not yes:
            typer.confirm(f"Remove {endpoint}?", abort=True, err=True)
        with asking(connect, url, token) as gateway:
            answer = gateway.delete(f"{PATH}/{segment(endpoint)}", actor=actor, reason=reason)
            answer.show(as_json=as_json, to_people=lambda document: print(f"Removed {document['endpoint_id']}."))


def _add_replay(group: typer.Typer, connect: Connect) -> None:
    @group.command("replay")
    def replay(
        what: Annotated[str, typer.Argument(help="A delivery's id (msg_…), or an endpoint's: all that failed there.")],
        *,
        actor: Actor,
        reason: Reason,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Send what failed again, under the same webhook-id; at most 1,000 of an endpoint at once."""
        is_one = what.startswith("msg_")
        path = f"{PATH}/deliveries/{segment(what)}/replay" if is_one else f"{PATH}/{segment(what)}/replay"
        with asking(connect, url, token) as gateway:
            answer = gateway.post(path, {"actor": actor, "reason": reason})
            answer.show(
                as_json=as_json,
                to_people=lambda document: show_deliveries({"results": [document]} if is_one else document),
            )


def show_endpoints(document: dict[str, Any]) -> None:
    """One line per endpoint."""
    show_table(
        f"Webhook endpoints; {document['pending']:,} deliveries on their way",
        ("endpoint", "url", "events", "organization", "state", "failing since"),
        [
            (
                each["endpoint_id"],
                each["url"],
                ", ".join(each["events"]),
                each["organization_id"] or "all",
                _state(each),
                instant(each["failing_since"]),
            )
            for each in document["results"]
        ],
        whole=("endpoint",),
        empty="No endpoints. Add one with `quill limits webhooks add`.",
    )


def show_endpoint(document: dict[str, Any]) -> None:
    """Its facts, and its changes where they came along."""
    show_facts(
        document["endpoint_id"],
        [
            ("url", document["url"]),
            ("description", document["description"]),
            ("events", ", ".join(document["events"])),
            ("organization", document["organization_id"] or "all"),
            ("state", _state(document)),
            ("failing since", instant(document["failing_since"])),
            ("secret before it signs until", instant(document["previous_secret_until"])),
            ("added", instant(document["created_at"])),
        ],
    )
    if "changes" in document:
        show_table(
            "Changes",
            ("at", "what", "who", "why"),
            [(instant(each["at"]), each["type"], each["actor"], each["reason"]) for each in document["changes"]],
            empty="",
        )


def show_secret(document: dict[str, Any]) -> None:
    """The endpoint, and its secret alone on the last line: it is never shown again."""
    show_endpoint(document)
    print("The secret, shown this once:")
    print(document["secret"])


def show_deliveries(document: dict[str, Any]) -> None:
    """One line per delivery."""
    show_table(
        "Deliveries, newest first",
        ("delivery", "endpoint", "event", "organization", "status", "tries", "next try", "last answer"),
        [
            (
                each["delivery_id"],
                each["endpoint_id"],
                each["event"],
                each["organization_id"],
                each["status"],
                each["attempts"],
                instant(each["due_at"]),
                each["last_error"] or each["last_status"],
            )
            for each in document["results"]
        ],
        numbers=("tries",),
        whole=("delivery",),
        empty="No such deliveries; finished ones are forgotten after 30 days.",
    )


def _state(endpoint: dict[str, Any]) -> str:
    because = {
        "person": "disabled by a person",
        "gone": "disabled: the receiver answered 410",
        "failing": "disabled: nothing was taken for days",
    }
    return "enabled" if endpoint["enabled"] else because.get(endpoint["disabled_because"], "disabled")
