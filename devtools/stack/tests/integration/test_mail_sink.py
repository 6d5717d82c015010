import asyncio
import smtplib
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path

import pytest
from quill_stack.mail_sink import serve
from quill_stack.ports import free_port

pytestmark = pytest.mark.integration


def send(port: int, subject: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "billing@quill.example", "ann@customer.example", subject
    mail.set_content("a license")
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
        client.send_message(mail)


async def deliver(port: int, folder: Path, subject: str) -> None:
    sink = asyncio.create_task(serve(port, folder))
    for _ in range(200):
        await asyncio.sleep(0.01)
        try:
            await asyncio.to_thread(send, port, subject)
        except ConnectionRefusedError:
            continue
        break
    sink.cancel()
    await asyncio.gather(sink, return_exceptions=True)


def test_a_mail_is_a_file_once_it_was_accepted_and_numbers_go_on_after_a_restart(tmp_path: Path):
    port = free_port()
    for subject in ("first", "zweite: ü"):
        asyncio.run(deliver(port, tmp_path, subject))
    kept = [message_from_bytes(path.read_bytes()) for path in sorted(tmp_path.glob("*.eml"))]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000001.eml", "000002.eml"]
    assert kept[0]["Subject"] == "first"
    assert kept[0]["X-Envelope-To"] == "ann@customer.example"
    assert kept[1].get_payload(decode=True) == b"a license\r\n"
