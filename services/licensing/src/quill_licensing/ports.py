"""What the use cases need from outside; each has a real and an in-memory implementation."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from quill_licensing.domain.activation import Activation
from quill_licensing.domain.license import License, LicenseEvent, LicenseStatus, LicenseType
from quill_licensing.domain.license_mail import LicenseMail, MailState

T = TypeVar("T")

PAGE_MAX = 200


class SourceTaken(Exception):
    """Another active license stands for this source; reports of two instances would merge into one cell (L1)."""


class ClaimConflict(Exception):
    """This idempotency key was used for a signup with other content."""


class MailRefused(Exception):
    """The mail server will never take this mail; a person must look."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A caller's own name for a signup. Claimants do not see each other's keys."""

    claimant: str
    idempotency_key: str

    def __repr__(self) -> str:
        return f"Claim(claimant={self.claimant!r}, idempotency_key=…)"


@dataclass(frozen=True, slots=True)
class LicenseFilter:
    """Which licenses to list; None means any."""

    status: LicenseStatus | None = None
    type: LicenseType | None = None
    email: str | None = None


class LicenseTransaction(Protocol):
    """Licenses inside one transaction: everything it does appears together or not at all."""

    async def load(self, license_id: str, *, as_of: datetime | None = None) -> License | None:
        """The license as its facts say, at the end or as of an instant (inclusive)."""
        ...

    async def history(self, license_id: str) -> Sequence[LicenseEvent]:
        """Every fact of a license, oldest first."""
        ...

    async def save(self, license_before: License | None, events: Sequence[LicenseEvent]) -> License:
        """Append facts and bring the projection along.

        Raises:
            SourceTaken: an active license has the same source.
        """
        ...

    async def find(self, wanted: LicenseFilter, *, after_id: str, limit: int) -> Sequence[License]:
        """A page of licenses in the order of their ids."""
        ...

    async def publish(self, license_: License) -> None:
        """Tell every verifier, once the transaction commits."""
        ...

    async def claim(self, claim: Claim, *, content: bytes, license_id: str, now: datetime) -> str:
        """The license id that holds this claim: the given one, or that of an earlier signup with the same content.

        Raises:
            ClaimConflict: the earlier signup had other content.
        """
        ...

    async def plan_mail(self, license_: License, *, now: datetime) -> None:
        """Write down that the key must be mailed (L15); a repeat plans nothing new."""
        ...

    async def mail_state(self, license_id: str) -> MailState | None:
        """How far the mail has come; None when none was planned."""
        ...

    async def unknown_activations(self, activations: Sequence[Activation]) -> Sequence[Activation]:
        """Those of the given ones that are not known yet, each pair once."""
        ...

    async def add_activation(self, activation: Activation, *, is_exclusive: bool) -> None:
        """Keep an activation; an exclusive one is the only one its license may have (L17)."""
        ...

    async def activations(self, license_id: str, *, limit: int) -> Sequence[Activation]:
        """Organizations a license is used for, first seen first."""
        ...

    async def signup_bucket(self, bucket: str, *, now: datetime) -> datetime:
        """When this bucket is full again (now, if it was never used); locked until the transaction ends."""
        ...

    async def save_signup_bucket(self, bucket: str, *, full_at: datetime) -> None:
        """Remember a bucket."""
        ...

    async def forget_full_buckets(self, *, now: datetime) -> int:
        """Drop buckets that are full again, which say no more than their absence; returns how many."""
        ...


class LicenseStore(Protocol):
    """Runs work in a transaction, again when another writer was faster."""

    async def run(self, work: Callable[[LicenseTransaction], Awaitable[T]]) -> T:
        """Commit what ``work`` did and return its result; roll back on any exception."""
        ...


class SecretSealer(Protocol):
    """Seals secrets at rest; a secret opens only for the context it was sealed for."""

    def seal(self, secret: bytes, *, context: str) -> str: ...

    def open(self, sealed: str, *, context: str) -> bytes: ...


class Mailer(Protocol):
    """Brings a mail to a mail server."""

    async def send(self, mail: LicenseMail) -> Mapping[str, str]:
        """Return what to remember once the server has taken the mail.

        Raises:
            MailRefused: it never will. Any other exception means: try again later.
        """
        ...
