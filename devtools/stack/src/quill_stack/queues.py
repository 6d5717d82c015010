"""Queues and a bucket for a stack that has none: moto, a real HTTP emulator of both, on loopback.

``python -m quill_stack.queues`` reads ``QUEUES_PORT`` and, when the stack lives at another time, ``QUILL_CLOCK_FILE``:
a queue says when it took a message, and that must be the stack's time. Everything is in memory and gone with the
process.
"""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final

import moto.sqs.models
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from quill_stack.ports import HOST

QUEUE_V1: Final = "usage_reports"
QUEUE_V2: Final = "usage_reports_v2"
BUCKET: Final = "usage-reports"
ACCOUNT: Final = "123456789012"
"""Every emulated queue belongs to it."""
REGION: Final = "us-east-1"
SOURCE: Final = "ap"
"""Whose reports lie in the queues of this stack."""
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
"""The emulator takes any."""
VISIBILITY_SECONDS: Final = "30"
RETENTION_SECONDS: Final = 10**9


def queue_url(port: int, name: str) -> str:
    """Where a queue of the emulator answers."""
    return f"http://{HOST}:{port}/{ACCOUNT}/{name}"


def settings_of_usage_ingest(port: int) -> dict[str, str]:
    """What usage-ingest must be told to read these queues."""
    return {
        "USAGE_QUEUE_V1_URL": queue_url(port, QUEUE_V1),
        "USAGE_QUEUE_V2_URL": queue_url(port, QUEUE_V2),
        "USAGE_QUEUE_SOURCE": SOURCE,
        "USAGE_BUCKETS": BUCKET,
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_REGION": REGION,
        **CREDENTIALS,
    }


def follow(clock_file: Path) -> None:
    """Let the queues live at the stack's time."""

    def offset() -> float:
        try:
            return float(clock_file.read_text("ascii").strip() or 0)
        except FileNotFoundError:
            return 0.0

    def now_millis() -> float:
        return (time.time() + offset()) * 1_000

    # The emulator has no clock to hand in; its queues read this one name.
    setattr(moto.sqs.models, "unix_time_millis", now_millis)  # noqa: B010 - mypy knows no such export


def prepare() -> None:
    """Make queues and bucket, as whoever runs a region would."""
    for name in (QUEUE_V1, QUEUE_V2):
        queue = sqs_backends[ACCOUNT][REGION].create_queue(name, None, VisibilityTimeout=VISIBILITY_SECONDS)
        # The emulator forgets by the machine's clock what it took at the stack's.
        setattr(queue, "message_retention_period", RETENTION_SECONDS)  # noqa: B010 - made at run time
    s3_backends[ACCOUNT]["aws"].create_bucket(BUCKET, REGION)


def serve(port: int) -> None:
    """Emulate until SIGTERM."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    server = ThreadedMotoServer(HOST, port, verbose=False)
    prepare()
    server.start()
    stopping.wait()
    server.stop()


if __name__ == "__main__":
    if named := os.environ.get("QUILL_CLOCK_FILE"):
        follow(Path(named))
    serve(int(os.environ["QUEUES_PORT"]))
