"""The mail that brings a license key to a person (V15, V16).

It depends on the license alone, so that a repeat is identical (L15).
"""

from dataclasses import dataclass
from datetime import datetime

from quill_licensing.domain.license import License
from quill_licensing.domain.license_key import LicenseKey


@dataclass(frozen=True, slots=True)
class LicenseMail:
    """A mail before a mail server's words for it. ``mail_key`` becomes its Message-ID: one license, one mail."""

    mail_key: str
    recipient: str
    subject: str
    text: str
    dated: datetime

    def __repr__(self) -> str:
        return f"LicenseMail(mail_key={self.mail_key!r}, text=…)"


@dataclass(frozen=True, slots=True)
class MailState:
    """How far the mail of a license has come: planned, sent (under way), done or failed."""

    status: str
    attempts: int
    error: str | None


def mail_key(license_id: str) -> str:
    """Names the mail of a license, as its operation and in its Message-ID (L15)."""
    return f"license-mail.{license_id}"


def compose(license_: License, key: LicenseKey) -> LicenseMail:
    """What the person reads: the key, what it is for, and how to enter it by hand when activation failed (V16)."""
    text = f"""\
Hello,

this is the license key that was made for "{license_.organization_name}":

    {key.text}

The key tells the billing service which instance is calling. It enables
nothing and costs nothing by itself. Keep it secret: whoever has it can
speak for your instance.

If you signed up from within your instance, the key has been saved there
and you need not do anything.

If your instance does not show the license, enter the key by hand:

  1. Sign in to your instance as an administrator.
  2. Open Settings > Billing (the page /organization/billing).
  3. Paste the whole key, from "{key.license_id[:4]}" to its last character,
     into "License key" and activate it.

Entering the same key again is harmless. A key works for one organization:
the first one it is activated for.

If you did not ask for this key, you may ignore this mail.

License id (not secret; name it when you ask for help):
{license_.license_id}
"""
    return LicenseMail(
        mail_key=mail_key(license_.license_id),
        recipient=license_.email,
        subject="Your license key",
        text=text,
        dated=license_.issued_at,
    )
