"""``python -m quill_quota_limiter serve | migrate | rebuild | drift [--repair] [--json]``."""

from argparse import ArgumentParser

from quill_runtime.command_line import Command, run

from quill_quota_limiter.app import build, drift, rebuild
from quill_quota_limiter.settings import QuotaLimiterSettings


def _declare_drift(parser: ArgumentParser) -> None:
    parser.add_argument("--repair", action="store_true", help="put right what differs")
    parser.add_argument("--json", action="store_true", help="print a document for machines")


if __name__ == "__main__":
    run(
        package="quill_quota_limiter",
        settings_type=QuotaLimiterSettings,
        build=build,
        commands={
            "rebuild": Command("fill Redis from Postgres", lambda settings, _: rebuild(settings)),
            "drift": Command(
                "compare Redis with Postgres; ends with status 1 when they differ",
                lambda settings, asked: drift(settings, repair=asked.repair, as_json=asked.json),
                _declare_drift,
            ),
        },
    )
