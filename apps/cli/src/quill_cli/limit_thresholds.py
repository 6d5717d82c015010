"""``quill limits thresholds``: at what share of a quota, and at what cost, somebody is told."""

from typing import Annotated, Any

import typer
from quill_pricing.currency import UnknownCurrency
from quill_pricing.money import InvalidMoney, Money

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import show_table

Organization = Annotated[str, typer.Argument(help="Organization id.")]


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``limits thresholds`` with its commands."""
    thresholds = typer.Typer(help="At what share of a quota, and at what cost, somebody is told.", no_args_is_help=True)
    _add_show(thresholds, connect)
    _add_set(thresholds, connect)
    _add_spend(thresholds, connect)
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


def _add_spend(group: typer.Typer, connect: Connect) -> None:
    @group.command("spend")
    def spend(
        organization: Organization,
        amounts: Annotated[
            list[str] | None, typer.Argument(help="Cost of the meter in a billing period, e.g. 50 100.00.")
        ] = None,
        *,
        actor: Annotated[str, typer.Option(help="Who you are, e.g. your mail address.")],
        reason: Annotated[str, typer.Option(help="Why; kept with the change.")],
        meter: Annotated[str, typer.Option(help="The meter whose cost is meant.")],
        currency: Annotated[str, typer.Option(help="What the amounts are in; must be that of the price.")] = "usd",
        nothing: Annotated[bool, typer.Option("--nothing", help="Tell nothing.")] = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Tell when a meter has cost so much; amounts that are reached already are told at once."""
        if bool(amounts) == nothing:
            raise typer.BadParameter("give amounts, or --nothing")
        try:
            money = [Money.from_decimal_string(amount, currency) for amount in amounts or []]
        except (InvalidMoney, UnknownCurrency) as error:
            raise typer.BadParameter(str(error)) from error
        asked = {
            "meter": meter,
            "amounts_minor": [amount.amount_minor for amount in money],
            "currency": currency,
            "actor": actor,
            "reason": reason,
        }
        with asking(connect, url, token) as gateway:
            gateway.put(f"{_path(organization)}/spend", asked).show(as_json=as_json, to_people=show_thresholds)


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
    spend, spend_told = document["spend"], document["spend_told"]
    if spend or spend_told:
        show_table(
            "And at what cost of a meter in a billing period",
            ("meter", "tell at", "told in this billing period"),
            [
                (meter, _money(spend.get(meter, [])), _money(spend_told.get(meter, [])))
                for meter in sorted({*spend, *spend_told})
            ],
            empty="",
        )


def _path(organization: str) -> str:
    return f"/v1/limits/{segment(organization)}/thresholds"


def _list(percents: list[int]) -> str:
    return ", ".join(map(str, percents)) or "nothing"


def _money(amounts: list[dict[str, Any]]) -> str:
    money = [Money(amount["amount_minor"], amount["currency"]) for amount in amounts]
    return ", ".join(f"{amount.to_decimal_string()} {amount.currency}" for amount in money) or "nothing"
