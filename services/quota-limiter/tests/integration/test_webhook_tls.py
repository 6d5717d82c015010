"""TLS still proves the name, although the connection goes to an address that was looked up before (SSRF)."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from quill_quota_limiter.gateways.webhook_sender import HttpWebhookSender

pytestmark = pytest.mark.integration

NAME = "hooks.example.test"


def certificate_for(name: str, folder: Path) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


@asynccontextmanager
async def receiving(certificate: Path, private: Path) -> AsyncIterator[tuple[int, list[str | None]]]:
    """A TLS receiver on loopback: its port, and the names it was asked for."""
    context, asked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
    context.load_cert_chain(certificate, private)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


async def everything_is_here(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def sender_trusting(certificate: Path) -> HttpWebhookSender:
    trust = ssl.create_default_context(cafile=certificate)
    return HttpWebhookSender(allow_http=False, allow_private=True, resolve=everything_is_here, tls=trust)


async def test_the_receiver_is_asked_for_its_name_and_proves_it(tmp_path):
    certificate, private = certificate_for(NAME, tmp_path)
    async with receiving(certificate, private) as (port, asked):
        outcome = await sender_trusting(certificate).send(f"https://{NAME}:{port}/in", headers={}, body=b"{}")
    assert (outcome.status, outcome.error, asked) == (200, None, [NAME])


async def test_a_receiver_of_another_name_is_told_nothing(tmp_path):
    certificate, private = certificate_for("elsewhere.example.test", tmp_path)
    async with receiving(certificate, private) as (port, _):
        outcome = await sender_trusting(certificate).send(f"https://{NAME}:{port}/in", headers={}, body=b"{}")
    assert outcome.status is None
    assert "CERTIFICATE_VERIFY_FAILED" in (outcome.error or "")


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    certificate, private = certificate_for(NAME, tmp_path)
    public = HttpWebhookSender(allow_http=False, allow_private=True, resolve=everything_is_here)
    async with receiving(certificate, private) as (port, _):
        outcome = await public.send(f"https://{NAME}:{port}/in", headers={}, body=b"{}")
    assert outcome.status is None
    assert "CERTIFICATE_VERIFY_FAILED" in (outcome.error or "")
