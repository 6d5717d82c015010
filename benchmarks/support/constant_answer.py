"""The ceiling of HTTP in Python: a raw ASGI application that always says the same, under the services' server flags.

It runs on the fastest event loop installed, whatever loop a service chooses: a ceiling should not follow its subject.

``python -m benchmarks.support.constant_answer PORT ANSWER``
"""

import sys
from typing import Any

import uvicorn
import uvloop
from quill_runtime.lifecycle import HTTP_DRAIN_SECONDS
from quill_stack.ports import HOST


def application(answer: bytes) -> Any:
    """Answers everything with ``answer``."""
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())],
    }
    body = {"type": "http.response.body", "body": answer}

    async def answer_constantly(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send(start)
        await send(body)

    return answer_constantly


def main() -> None:
    """Serve until told to stop, with the flags of ``quill_runtime.lifecycle.serve``."""
    config = uvicorn.Config(
        application(sys.argv[2].encode()),
        host=HOST,
        port=int(sys.argv[1]),
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=HTTP_DRAIN_SECONDS,
        h11_max_incomplete_event_size=64 * 1024,
    )
    uvloop.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
