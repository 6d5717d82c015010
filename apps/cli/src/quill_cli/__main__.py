"""The ``quill`` command: one module per command or group of commands, all put together here."""

import typer

from quill_cli.quote import quote

# "-5" is a bad quantity and must be refused as one, not as an unknown option.
_NEGATIVE_NUMBERS_ARE_ARGUMENTS = {"ignore_unknown_options": True}


def build_app() -> typer.Typer:
    """The command line: a single command is added as ``quote`` is, a group by ``app.add_typer(..., name=...)``."""
    app = typer.Typer(
        name="quill",
        help="Operate Quill: quotes, usage, limits, licenses, dead letters, topics.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_quill)
    app.command("quote", context_settings=_NEGATIVE_NUMBERS_ARE_ARGUMENTS)(quote)
    return app


def main() -> None:
    """Run the command line; exit status 2 says that it was called wrongly."""
    build_app()()


def _quill() -> None:
    """Keeps ``quote`` a command of its own name even while it is the only one."""


if __name__ == "__main__":
    main()
