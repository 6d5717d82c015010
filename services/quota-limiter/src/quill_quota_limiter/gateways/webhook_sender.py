"""One HTTP request to an address of somebody else's choosing (SSRF): checked, pinned, bounded, never redirected."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx

from quill_quota_limiter.domain.webhook_address import RefusedUrl, WebhookAddress, address_of, refusal_of
from quill_quota_limiter.domain.webhook_delivery import DeliveryOutcome

CONNECT_SECONDS: Final = 5.0
RESOLVE_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 15.0
"""From the first look-up to the last byte read: below the lease, whatever the receiver does."""
RESPONSE_BYTES_MAX: Final = 4_096
ADDRESSES_MAX: Final = 32
RESOLVER_THREADS: Final = 8
ERROR_MAX: Final = 300

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses behind a name. Raises `OSError`."""


class SystemResolver:
    """Asks the operating system, in threads of its own: a name server that hangs holds up nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="webhook-names")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class HttpWebhookSender:
    """Implements `quill_quota_limiter.ports.WebhookSender`.

    A name is resolved here, every address behind it is judged, and the connection is made to one that was judged: no
    second look-up can lead elsewhere. TLS still verifies the name. No proxy, no cookie, no connection is kept.
    """

    name = "webhook-sender"

    def __init__(
        self,
        *,
        allow_http: bool,
        allow_private: bool,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_http = allow_http
        self._allow_private = allow_private
        self._system = SystemResolver()
        self._resolve = resolve or self._system
        self._tls = tls or httpx.create_ssl_context(trust_env=False)

    async def start(self) -> None:
        """Nothing is connected before there is something to send."""

    async def stop(self) -> None:
        self._system.close()

    async def check(self, url: str) -> None:
        await self._judged(address_of(url, allow_http=self._allow_http))

    async def send(self, url: str, *, headers: Mapping[str, str], body: bytes) -> DeliveryOutcome:
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                address = address_of(url, allow_http=self._allow_http)
                return await self._post(address, await self._judged(address), headers=headers, body=body)
        except RefusedUrl as refused:
            return DeliveryOutcome(error=f"not sent: {refused}"[:ERROR_MAX])
        except TimeoutError:
            return DeliveryOutcome(error=f"no answer within {TOTAL_SECONDS:g} seconds")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return DeliveryOutcome(error=f"{type(error).__name__}: {error}"[:ERROR_MAX])

    async def _judged(self, address: WebhookAddress) -> str:
        """An address that may be connected to.

        Raises:
            RefusedUrl: the name leads nowhere, or any of its addresses must not be reached.
        """
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = list(await self._resolve(address.host, address.port))[:ADDRESSES_MAX]
        except TimeoutError as error:
            raise RefusedUrl(f"the name {address.host} was not resolved within {RESOLVE_SECONDS:g} seconds") from error
        except (OSError, UnicodeError) as error:
            raise RefusedUrl(f"the name {address.host} leads nowhere: {error}") from error
        if not found:
            raise RefusedUrl(f"the name {address.host} leads nowhere")
        for each in found:
            refusal = None if self._allow_private else refusal_of(each)
            if refusal is not None:
                raise RefusedUrl(f"{address.host} leads to {each}, which is {refusal}; give a public address")
        return found[0]

    async def _post(
        self, address: WebhookAddress, pinned: str, *, headers: Mapping[str, str], body: bytes
    ) -> DeliveryOutcome:
        literal = f"[{pinned}]" if ":" in pinned else pinned
        async with (
            httpx.AsyncClient(
                verify=self._tls,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_keepalive_connections=0),
            ) as client,
            client.stream(
                "POST",
                f"{address.scheme}://{literal}:{address.port}{address.target}",
                content=body,
                headers={
                    **headers,
                    "host": address.authority,
                    "content-type": "application/json",
                    "user-agent": "quill-webhooks/1",
                    "accept-encoding": "identity",
                    "connection": "close",
                },
                extensions={"sni_hostname": address.host.rstrip(".")},
            ) as response,
        ):
            return DeliveryOutcome(status=response.status_code, response=await _beginning(response))


async def _beginning(response: httpx.Response) -> str:
    """The first 4 kB as they came, made storable; the rest is never read, and nothing is unpacked."""
    kept = bytearray()
    async for piece in response.aiter_raw(RESPONSE_BYTES_MAX):
        kept += piece
        if len(kept) >= RESPONSE_BYTES_MAX:
            break
    return bytes(kept[:RESPONSE_BYTES_MAX]).decode("utf-8", "replace").replace("\x00", "\ufffd")


def _look_up(host: str, port: int) -> list[tuple[Any, ...]]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
