"""Where a webhook may go: which URLs, and which addresses behind their names (SSRF)."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

URL_MAX: Final = 2_000
PORT_MAX: Final = 65_535
WELL_KNOWN_PORTS: Final = 1_024
"""Ports below belong to mail, shells and the like; of them only HTTP's own are allowed."""
DEFAULT_PORTS: Final = {"https": 443, "http": 80}
CLOUD_ADDRESSES: Final = frozenset({ipaddress.ip_address("168.63.129.16")})
"""Public by number, yet answered by the machine's own cloud."""
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_HOST: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*\.?")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RefusedUrl(ValueError):
    """Nothing is sent there; the text says why and what to give instead."""


@dataclass(frozen=True, slots=True)
class WebhookAddress:
    """A URL taken apart once, so that what is checked is what is connected to."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the ``Host`` header says."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"


def address_of(url: str, *, allow_http: bool) -> WebhookAddress:
    """Take a URL apart.

    Raises:
        RefusedUrl: not an https address (or http where that is allowed), or one with parts that hide where it goes.
    """
    if len(url) > URL_MAX or not _VISIBLE.fullmatch(url) or "\\" in url:
        raise RefusedUrl(
            f"give at most {URL_MAX:,} visible ASCII characters without a backslash (a host in its xn-- form)"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RefusedUrl(f"not a URL: {error}") from error
    if parts.scheme not in DEFAULT_PORTS or (parts.scheme == "http" and not allow_http):
        raise RefusedUrl("give an address that begins with https://")
    if "@" in parts.netloc:
        raise RefusedUrl("a URL with a user or password is refused; the signature proves who sends")
    if "#" in url:
        raise RefusedUrl("a fragment is never sent; leave out what begins with #")
    host = parts.hostname or ""
    if not _is_host(host, parts.netloc):
        raise RefusedUrl(f"{host!r} is not a host name or an IP address")
    chosen = DEFAULT_PORTS[parts.scheme] if port is None else port
    if chosen != DEFAULT_PORTS[parts.scheme] and not WELL_KNOWN_PORTS <= chosen <= PORT_MAX:
        usual = DEFAULT_PORTS[parts.scheme]
        raise RefusedUrl(f"port {chosen} is refused: use {usual}, or one from {WELL_KNOWN_PORTS} to {PORT_MAX}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebhookAddress(parts.scheme, host, chosen, target)


def refusal_of(address: str) -> str | None:
    """Why a resolved address must not be connected to, or ``None`` if it is somebody's on the public internet.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64) is judged as that one; tunnels (6to4, Teredo) are
    refused.
    """
    try:
        found: Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "not an IP address"
    if isinstance(found, ipaddress.IPv6Address):
        if found.sixtofour is not None or found.teredo is not None:
            return "a tunnel's"
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _NAT64:
            found = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
    kinds = (
        (found.is_loopback, "loopback"),
        (found.is_link_local, "link-local, where clouds keep their metadata"),
        (found.is_multicast, "multicast"),
        (found.is_unspecified, "unspecified"),
        (found in CLOUD_ADDRESSES, "a cloud's own"),
        (isinstance(found, ipaddress.IPv6Address) and found.is_site_local, "private"),
        (found.is_private, "private"),
        (found.is_reserved or not found.is_global, "not on the public internet"),
    )
    return next((kind for holds, kind in kinds if holds), None)


def _is_host(host: str, netloc: str) -> bool:
    if netloc.startswith("["):
        try:
            return ipaddress.ip_address(host).version == 6 and "%" not in host  # noqa: PLR2004 - IPv6
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None
