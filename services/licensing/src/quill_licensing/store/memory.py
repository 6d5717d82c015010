"""Licenses in memory, with the behaviour of the Postgres store: for use-case tests and simulation."""

import asyncio
import copy
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from quill_licensing.domain.activation import Activation
from quill_licensing.domain.license import License, LicenseEvent, evolve, replay
from quill_licensing.domain.license_mail import MailState, mail_key
from quill_licensing.ports import (
    PAGE_MAX,
    Claim,
    ClaimConflict,
    LicenseFilter,
    LicenseTransaction,
    SourceTaken,
)

T = TypeVar("T")


class ExclusivenessBroken(AssertionError):
    """A second organization would have been kept for a self-hosted license (L17); the decision should have refused."""


@dataclass(slots=True)
class Kept:
    """Everything a committed transaction leaves behind; tests look inside."""

    facts: dict[str, list[LicenseEvent]] = field(default_factory=dict)
    licenses: dict[str, License] = field(default_factory=dict)
    published: list[License] = field(default_factory=list)
    claims: dict[Claim, tuple[bytes, str]] = field(default_factory=dict)
    mails: dict[str, MailState] = field(default_factory=dict)
    activations: dict[tuple[str, str], tuple[Activation, bool]] = field(default_factory=dict)
    buckets: dict[str, datetime] = field(default_factory=dict)


class MemoryLicenseTransaction:
    """A `LicenseTransaction` on a copy that `MemoryLicenseStore.run` keeps or throws away."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    async def load(self, license_id: str, *, as_of: datetime | None = None) -> License | None:
        facts = self._kept.facts.get(license_id, [])
        return replay(fact for fact in facts if as_of is None or fact.at <= as_of)

    async def history(self, license_id: str) -> Sequence[LicenseEvent]:
        return list(self._kept.facts.get(license_id, []))

    async def save(self, license_before: License | None, events: Sequence[LicenseEvent]) -> License:
        license_ = license_before
        for event in events:
            license_ = evolve(license_, event)
        if license_ is None:
            raise ValueError("saving needs a license or a first fact")
        for other in self._kept.licenses.values():
            if (
                license_.status == other.status == "active"
                and other.source == license_.source
                and other.license_id != license_.license_id
            ):
                raise SourceTaken(f"an active license stands for the source {license_.source!r}")
        self._kept.facts.setdefault(license_.license_id, []).extend(events)
        self._kept.licenses[license_.license_id] = license_
        return license_

    async def find(self, wanted: LicenseFilter, *, after_id: str, limit: int) -> Sequence[License]:
        found = [
            license_
            for license_id, license_ in sorted(self._kept.licenses.items())
            if license_id > after_id
            and wanted.status in (None, license_.status)
            and wanted.type in (None, license_.type)
            and wanted.email in (None, license_.email)
        ]
        return found[: min(limit, PAGE_MAX)]

    async def publish(self, license_: License) -> None:
        self._kept.published.append(license_)

    async def claim(self, claim: Claim, *, content: bytes, license_id: str, now: datetime) -> str:
        del now
        digest = hashlib.sha256(content).digest()
        known_digest, holder = self._kept.claims.setdefault(claim, (digest, license_id))
        if known_digest != digest:
            raise ClaimConflict("this idempotency key was used for another signup")
        return holder

    async def plan_mail(self, license_: License, *, now: datetime) -> None:
        del now
        self._kept.mails.setdefault(mail_key(license_.license_id), MailState("planned", 0, None))

    async def mail_state(self, license_id: str) -> MailState | None:
        return self._kept.mails.get(mail_key(license_id))

    async def unknown_activations(self, activations: Sequence[Activation]) -> Sequence[Activation]:
        pairs = {(a.license_id, a.organization_id): a for a in activations}
        return [activation for pair, activation in pairs.items() if pair not in self._kept.activations]

    async def add_activation(self, activation: Activation, *, is_exclusive: bool) -> None:
        pair = (activation.license_id, activation.organization_id)
        for (license_id, organization_id), (_, other_is_exclusive) in self._kept.activations.items():
            both_exclusive = is_exclusive and other_is_exclusive
            if both_exclusive and license_id == pair[0] and organization_id != pair[1]:
                raise ExclusivenessBroken(f"license {license_id} belongs to {organization_id}")
        self._kept.activations.setdefault(pair, (activation, is_exclusive))

    async def activations(self, license_id: str, *, limit: int) -> Sequence[Activation]:
        found = [a for a, _ in self._kept.activations.values() if a.license_id == license_id]
        return sorted(found, key=lambda a: (a.first_seen_at, a.organization_id))[:limit]

    async def signup_bucket(self, bucket: str, *, now: datetime) -> datetime:
        return self._kept.buckets.setdefault(bucket, now)

    async def save_signup_bucket(self, bucket: str, *, full_at: datetime) -> None:
        self._kept.buckets[bucket] = full_at

    async def forget_full_buckets(self, *, now: datetime) -> int:
        full = [bucket for bucket, full_at in self._kept.buckets.items() if full_at <= now]
        for bucket in full:
            del self._kept.buckets[bucket]
        return len(full)


class MemoryLicenseStore:
    """A `LicenseStore` whose transactions run one after another."""

    def __init__(self) -> None:
        self.kept = Kept()
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[LicenseTransaction], Awaitable[T]]) -> T:
        async with self._turn:
            tentative = copy.deepcopy(self.kept)
            result = await work(MemoryLicenseTransaction(tentative))
            self.kept = tentative
            return result
