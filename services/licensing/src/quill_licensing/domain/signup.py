"""What somebody who wants a license says, and what they get."""

import json
from dataclasses import dataclass
from typing import Final

from quill_licensing.domain.license import License, LicenseType
from quill_licensing.domain.license_key import LicenseKey

EMAIL_PATTERN: Final = (
    r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}$"
)
"""An address that fits any mail header and any mail server: ASCII, a domain with a dot, nothing quoted."""


@dataclass(frozen=True, slots=True)
class Signup:
    """What somebody who wants a license says about themselves."""

    email: str
    organization_name: str
    type: LicenseType
    source: str | None

    def content(self) -> bytes:
        """Equal for equal signups, so that a reused idempotency key with another signup is noticed."""
        fields = {
            "email": self.email,
            "organization_name": self.organization_name,
            "source": self.source,
            "type": self.type,
        }
        return json.dumps(fields, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class IssuedLicense:
    """A license together with its key; ``is_repeat`` when the same signup had made it before."""

    license: License
    key: LicenseKey
    is_repeat: bool
