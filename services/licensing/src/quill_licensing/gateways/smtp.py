"""Mail over SMTP. Only this module speaks to a mail server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

import aiosmtplib

from quill_licensing.domain.license_mail import LicenseMail
from quill_licensing.ports import MailRefused
from quill_licensing.settings import SmtpSecurity

PERMANENT_FROM = 500
RESPONSE_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class SmtpMailer:
    """Sends each mail over a connection of its own; signups are rare.

    The Message-ID comes from the license, so that a mail sent twice around a crash is recognisably the same (L15).
    """

    host: str
    port: int
    sender: str
    security: SmtpSecurity
    timeout_seconds: float
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    async def send(self, mail: LicenseMail) -> Mapping[str, str]:
        """Hand the mail over; what comes back is what the server said of it.

        Raises:
            MailRefused: the server answered 5xx to this recipient or this mail.
            aiosmtplib.SMTPException | OSError: anything else; the outcome may be unknown, send it again later.
        """
        message = self.message(mail)
        try:
            _, response = await aiosmtplib.send(
                message,
                hostname=self.host,
                port=self.port,
                username=self.username,
                password=self.password,
                use_tls=self.security == "tls",
                start_tls={"opportunistic": None, "starttls": True, "tls": False}[self.security],
                timeout=self.timeout_seconds,
                local_hostname=self._domain,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [refusal.code for refusal in error.recipients]
            if all(code >= PERMANENT_FROM for code in codes):
                raise MailRefused(f"the server refuses the recipient with {codes}") from error
            raise
        except aiosmtplib.SMTPDataError as error:
            if error.code >= PERMANENT_FROM:
                raise MailRefused(f"the server refuses the mail with {error.code}") from error
            raise
        return {"message_id": message["Message-ID"], "response": response[:RESPONSE_CHARACTERS_MAX]}

    def message(self, mail: LicenseMail) -> EmailMessage:
        """The mail in the form that travels; the same mail always makes the same bytes."""
        message = EmailMessage()
        message["From"] = Address(display_name="Billing", addr_spec=self.sender)
        message["To"] = Address(addr_spec=mail.recipient)
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(mail.dated)
        message["Message-ID"] = f"<{mail.mail_key}@{self._domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        return message

    @property
    def _domain(self) -> str:
        return self.sender.rpartition("@")[2]
