"""``python -m quill_demo``: the whole system on real parts, a month through it, every number checked."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from quill_regions.sources import NotAccepted
from quill_stack.errors import StackError
from rich.console import Console

from quill_demo.billing_client import UnexpectedAnswer
from quill_demo.latency import NeverVisible
from quill_demo.run import Options, run_demo
from quill_demo.world import DAYS_MAX


def main() -> None:
    """Play the demo; exit status 0: every number equalled the truth; 1: one did not; 2: it could not run."""
    parser = argparse.ArgumentParser(prog="python -m quill_demo", description=__doc__)
    parser.add_argument("--organizations", type=int, default=300, help="how many take part (default 300)")
    parser.add_argument("--days", type=int, default=DAYS_MAX, help="days with usage, at most 30")
    parser.add_argument("--seed", type=int, default=1, help="draws everything; the same seed, the same month")
    parser.add_argument("--no-misbehaviour", action="store_true", help="every report once and in time")
    parser.add_argument(
        "--chaos",
        action="store_true",
        default=os.environ.get("CHAOS", "0") not in ("", "0"),
        help="SIGKILL services at random moments (also CHAOS=1)",
    )
    parser.add_argument("--state", type=Path, help="keep the state in this folder instead of a temporary one")
    parser.add_argument(
        "--allow-mock-kafka", action="store_true", default=os.environ.get("CI") != "true", help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if not 1 <= arguments.days <= DAYS_MAX:
        parser.error(f"--days must be 1 to {DAYS_MAX}: the last day of the month is for what comes late")
    if arguments.organizations < 1:
        parser.error("--organizations must be at least 1")
    console = Console(width=None if sys.stdout.isatty() else 140)
    with tempfile.TemporaryDirectory(prefix="quill-demo-", ignore_cleanup_errors=True) as temporary:
        options = Options(
            organizations=arguments.organizations,
            days=arguments.days,
            seed=arguments.seed,
            misbehave=not arguments.no_misbehaviour,
            chaos=arguments.chaos,
            state=arguments.state or Path(temporary),
            allow_mock_kafka=arguments.allow_mock_kafka,
        )
        try:
            equal = run_demo(options, console)
        except (StackError, UnexpectedAnswer, NotAccepted, NeverVisible) as error:
            console.print(f"[red]The demo could not run:[/] {error}")
            sys.exit(2)
        except KeyboardInterrupt:
            console.print("Stopped; nothing is left running.")
            sys.exit(130)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
