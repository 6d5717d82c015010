"""A mail server in memory: takes every mail, or fails on request."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from quill_licensing.domain.license_mail import LicenseMail


@dataclass(slots=True)
class MemoryMailer:
    """Keeps mails in the order they were sent; ``failure`` is raised instead while it is set."""

    sent: list[LicenseMail] = field(default_factory=list)
    failure: Exception | None = None

    async def send(self, mail: LicenseMail) -> Mapping[str, str]:
        if self.failure is not None:
            raise self.failure
        self.sent.append(mail)
        return {"message_id": f"<{mail.mail_key}@memory.invalid>", "response": "kept"}
