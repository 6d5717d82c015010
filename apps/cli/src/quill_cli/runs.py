"""``quill runs``: the runs of chunk files that regions announced, and how far each was copied."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking
from quill_cli.printing import instant, show_table


def command(connect: Connect) -> Callable[..., None]:
    """The command, asking through ``connect``."""

    def runs(
        *,
        limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 50,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """List report runs. A failed one waits in `quill dead-letters list --service usage-ingest`; replay it there."""
        with asking(connect, url, token) as gateway:
            gateway.get("/v1/report-runs", limit=limit).show(as_json=as_json, to_people=show_runs)

    return runs


def show_runs(document: Mapping[str, Any]) -> None:
    """One line a run."""
    show_table(
        "Report runs",
        ("run", "source", "day", "", "state", "chunks", "lines", "organizations", "arrived", "reason"),
        [
            (
                run["run_id"],
                run["source"],
                run["date"],
                run["completeness"],
                run["state"],
                f"{run['chunks_done']} of {run['chunks']}",
                run["lines_sent"],
                run["organizations"],
                instant(run["arrived_at"]),
                run["reason"],
            )
            for run in document["results"]
        ],
        numbers=("lines", "organizations"),
        whole=("run", "state"),
        empty="No run has arrived. USAGE_QUEUE_V2_URL names the queue that announces them.",
    )
