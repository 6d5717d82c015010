"""The ``quill`` command: one module per command or group of commands, all put together here."""

import typer

from quill_cli import (
    alerts,
    closings,
    customer_credits,
    dead_letters,
    further_licenses,
    invoices,
    licenses,
    limit_history,
    limit_rules,
    limit_scopes,
    limit_thresholds,
    limit_webhooks,
    limits,
    operations,
    runs,
    sources,
    subscriptions,
    updates,
    usage,
    usage_backfill,
    usage_corrections,
    usage_events,
    usage_explanation,
    usage_generations,
    usage_series,
)
from quill_cli.gateway import Connect, connect_over_http
from quill_cli.quote import quote
from quill_cli.topics import topics

# "-5" is a bad quantity and must be refused as one, not as an unknown option.
_NEGATIVE_NUMBERS_ARE_ARGUMENTS = {"ignore_unknown_options": True}


def build_app(connect: Connect = connect_over_http) -> typer.Typer:
    """The command line: a single command is added as ``quote`` is, a group by ``app.add_typer(..., name=...)``.

    Args:
        connect: How the gateway is reached; tests answer for it.
    """
    app = typer.Typer(
        name="quill",
        help="Operate Quill: usage, limits, invoices, credits, closings, licenses, operations, dead letters and more.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.command("quote", context_settings=_NEGATIVE_NUMBERS_ARE_ARGUMENTS)(quote)
    usage_group = usage.commands(connect)
    usage_explanation.add_to(usage_group, connect)
    usage_corrections.add_to(usage_group, connect)
    usage_backfill.add_to(usage_group, connect)
    usage_series.add_to(usage_group, connect)
    usage_events.add_to(usage_group, connect)
    usage_generations.add_to(usage_group, connect)
    app.add_typer(usage_group, name="usage")
    limits_group = limits.commands(connect)
    limit_history.add_to(limits_group, connect)
    limit_rules.add_to(limits_group, connect)
    limit_scopes.add_to(limits_group, connect)
    limit_thresholds.add_to(limits_group, connect)
    limit_webhooks.add_to(limits_group, connect)
    app.add_typer(limits_group, name="limits")
    app.add_typer(invoices.commands(connect), name="invoices")
    app.add_typer(closings.commands(connect), name="closings")
    app.add_typer(alerts.commands(connect), name="alerts")
    app.add_typer(customer_credits.commands(connect), name="credits")
    app.add_typer(operations.commands(connect), name="operations")
    app.add_typer(sources.commands(connect), name="sources")
    app.add_typer(subscriptions.commands(connect), name="subscriptions")
    licenses_group = licenses.commands(connect)
    further_licenses.add_to(licenses_group, connect)
    app.add_typer(licenses_group, name="licenses")
    app.add_typer(dead_letters.commands(connect), name="dead-letters")
    app.command("runs")(runs.command(connect))
    app.command("updates")(updates.command(connect))
    app.command("topics")(topics)
    return app


def main() -> None:
    """Run the command line; exit status 1 says that Quill refused, 2 that it was called wrongly."""
    build_app()()


if __name__ == "__main__":
    main()
