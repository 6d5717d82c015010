"""`python -m quill_stripesim serve --port 12111`: a Stripe on loopback."""

import argparse
from pathlib import Path

from quill_stripesim.app import Settings
from quill_stripesim.serving import LOOPBACK, serve


def main() -> None:
    """Reads the command line and serves until told to stop."""
    parser = argparse.ArgumentParser(prog="quill-stripesim", description="A stateful Stripe on loopback.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="serve until stopped")
    serving.add_argument("--port", type=int, required=True, help="port to listen on")
    serving.add_argument("--host", default=LOOPBACK, help="address to listen on; loopback unless in a container")
    serving.add_argument("--webhook-url", help="endpoint that hears every event")
    serving.add_argument("--webhook-secret", help="its signing secret (whsec_…)")
    serving.add_argument("--state", type=Path, help="file that keeps the state over a kill")
    serving.add_argument("--clock-file", type=Path, help="file holding the seconds to add to the system clock")
    serving.add_argument("--grace-hours", type=int, default=1, help="how long drafts wait to be finalized (1 to 72)")
    chosen = parser.parse_args()
    settings = Settings(
        state_file=chosen.state,
        clock_file=chosen.clock_file,
        webhook_url=chosen.webhook_url,
        webhook_secret=chosen.webhook_secret,
        grace_hours=chosen.grace_hours,
    )
    serve(settings, port=chosen.port, host=chosen.host)


if __name__ == "__main__":
    main()
