"""The key of a license: ``<id>::<secret>``, the form PostHog's instances read."""

import base64
import re
from dataclasses import dataclass
from typing import Final

ID_BYTES: Final = 12
SECRET_BYTES: Final = 32
"""HS256 needs at least as much randomness as its hash has bits."""
SEPARATOR: Final = "::"

_LICENSE_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,100}")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_PREFIX: Final = "lic_"


class MalformedLicenseKey(ValueError):
    """Not an id of 16 to 100 and a secret of 43 url-safe characters. The text never repeats what was given."""


@dataclass(frozen=True, slots=True)
class LicenseKey:
    """What an instance keeps and signs its tokens with. Never logged, stored or published as it is."""

    license_id: str
    secret: str

    def __post_init__(self) -> None:
        if not _LICENSE_ID.fullmatch(self.license_id) or not _SECRET.fullmatch(self.secret):
            raise MalformedLicenseKey("a license key is <id>::<secret>, url-safe characters only")

    def __repr__(self) -> str:
        return f"LicenseKey(license_id={self.license_id!r}, secret=…)"

    @property
    def text(self) -> str:
        """The whole key, exactly one ``::`` inside, far below the 200 characters an instance accepts."""
        return f"{self.license_id}{SEPARATOR}{self.secret}"

    @classmethod
    def parse(cls, text: str) -> "LicenseKey":
        """Read a key as a person pasted it; white space around it is forgiven.

        Raises:
            MalformedLicenseKey: it has another form.
        """
        license_id, _, secret = text.strip().partition(SEPARATOR)
        return cls(license_id, secret)

    @classmethod
    def from_random(cls, *, id_bytes: bytes, secret_bytes: bytes) -> "LicenseKey":
        """The key that random bytes, drawn at an entry point, stand for.

        Ids begin with a letter so that no command line takes one for an option.

        Raises:
            MalformedLicenseKey: not 12 and 32 bytes.
        """
        if len(id_bytes) != ID_BYTES or len(secret_bytes) != SECRET_BYTES:
            raise MalformedLicenseKey(f"needs {ID_BYTES} bytes for the id and {SECRET_BYTES} for the secret")
        return cls(_PREFIX + _url_safe(id_bytes), _url_safe(secret_bytes))


def _url_safe(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
