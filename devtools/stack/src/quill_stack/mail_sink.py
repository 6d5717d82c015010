"""A mail server for a stack that has none: takes every mail on loopback and keeps it as a file.

``python -m quill_stack.mail_sink`` reads ``SMTP_PORT`` and ``MAIL_DIR``; each mail becomes ``<number>.eml`` there.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope

from quill_stack.ports import HOST

MAIL_BYTES_MAX = 1_048_576


class MailFolder:
    """Keeps mails in the order of their arrival."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._last = max((int(path.stem) for path in folder.glob("*.eml")), default=0)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Store one mail; only then is it accepted."""
        self._last += 1
        content = envelope.content or b""
        raw = content.encode() if isinstance(content, str) else content
        head = f"X-Envelope-To: {', '.join(envelope.rcpt_tos)}\r\n".encode()
        scratch = self._folder / f"{self._last:06}.part"
        scratch.write_bytes(head + raw)
        scratch.rename(scratch.with_suffix(".eml"))
        return "250 kept"


async def serve(port: int, folder: Path) -> None:
    """Take mails until SIGTERM."""
    mails = MailFolder(folder)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    server = await loop.create_server(
        lambda: SMTP(mails, hostname="localhost", data_size_limit=MAIL_BYTES_MAX, enable_SMTPUTF8=True), HOST, port
    )
    async with server:
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(os.environ["SMTP_PORT"]), Path(os.environ["MAIL_DIR"])))
