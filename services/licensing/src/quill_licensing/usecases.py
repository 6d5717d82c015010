"""Load, decide, save, emit: one use case, one transaction."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Final

from quill_licensing.domain import license_mail
from quill_licensing.domain.activation import Activation
from quill_licensing.domain.license import (
    Activate,
    Issue,
    License,
    NoSuchLicense,
    Revoke,
    changes_what_is_published,
    decide,
)
from quill_licensing.domain.license_key import LicenseKey
from quill_licensing.domain.license_story import LicenseStory
from quill_licensing.domain.signup import IssuedLicense, Signup
from quill_licensing.domain.signup_pace import Pace
from quill_licensing.ports import (
    Claim,
    LicenseFilter,
    LicenseStore,
    LicenseTransaction,
    Mailer,
    SecretSealer,
)

REPEAT_WINDOW: Final = timedelta(hours=24)
"""How long a repeated signup is answered with the key again. The idempotency key is as good as the license key for this
long, so it ends; afterwards the mailed key is the way (V16)."""
ACTIVATIONS_SHOWN_MAX: Final = 100
SUBSCRIPTIONS_ACTOR: Final = "subscriptions"


class RepeatTooLate(Exception):
    """The same signup was answered more than a day ago; its key is not shown again."""


async def admit_signup(paces: Mapping[str, Pace], *, store: LicenseStore, now: datetime) -> None:
    """Take one token from each bucket; in a transaction of its own, so that a signup refused later still counts.

    Args:
        paces: Bucket name to its pace, e.g. one for the address and one for the e-mail.
        store: Where buckets live.
        now: The instant of the signup.

    Raises:
        TooManySignups: a bucket is empty; none was touched.
    """
    # A bucket needs to recognise an address, not to know it.
    buckets = {hashlib.sha256(subject.encode()).hexdigest(): pace for subject, pace in paces.items()}

    async def work(tx: LicenseTransaction) -> None:
        # One order for everybody, so that two signups never wait for each other's buckets.
        for bucket, pace in sorted(buckets.items(), key=itemgetter(0)):
            full_at = pace.admit(full_at=await tx.signup_bucket(bucket, now=now), now=now)
            await tx.save_signup_bucket(bucket, full_at=full_at)

    await store.run(work)


async def issue_license(
    signup: Signup,
    *,
    key: LicenseKey,
    actor: str,
    claim: Claim | None,
    store: LicenseStore,
    sealer: SecretSealer,
    now: datetime,
) -> IssuedLicense:
    """Make a license: facts, snapshot for verifiers and the planned mail appear together (L15, L20).

    Args:
        signup: For whom.
        key: Fresh random id and secret from the entry point; unused when this is a repeat.
        actor: Who asks.
        claim: The caller's name for this signup, so that asking again makes no second license.
        store: Where licenses live.
        sealer: Seals the secret; nothing but the answer and the mail ever holds it open.
        now: The instant of the signup.

    Raises:
        ClaimConflict: the idempotency key was used for another signup.
        RepeatTooLate: a repeat after `REPEAT_WINDOW`.
        SourceTaken: an active license stands for the source.
    """

    async def work(tx: LicenseTransaction) -> IssuedLicense:
        if claim is not None:
            holder = await tx.claim(claim, content=signup.content(), license_id=key.license_id, now=now)
            if holder != key.license_id:
                return await _repeat(tx, holder, sealer=sealer, now=now)
        command = Issue(
            license_id=key.license_id,
            type=signup.type,
            email=signup.email,
            organization_name=signup.organization_name,
            source=signup.source or f"instance-{key.license_id}",
            sealed_secret=sealer.seal(key.secret.encode(), context=key.license_id),
        )
        before = await tx.load(key.license_id)
        license_ = await tx.save(before, decide(before, command, actor=actor, now=now))
        await tx.publish(license_)
        await tx.plan_mail(license_, now=now)
        return IssuedLicense(license_, key, is_repeat=False)

    return await store.run(work)


async def _repeat(tx: LicenseTransaction, license_id: str, *, sealer: SecretSealer, now: datetime) -> IssuedLicense:
    license_ = await _existing(tx, license_id)
    if now - license_.issued_at > REPEAT_WINDOW:
        raise RepeatTooLate(f"license {license_id} was issued at {license_.issued_at.isoformat()}; use the mailed key")
    return IssuedLicense(license_, open_key(license_, sealer=sealer), is_repeat=True)


def open_key(license_: License, *, sealer: SecretSealer) -> LicenseKey:
    """The whole key of a license, for its first answer and its mail only."""
    secret = sealer.open(license_.sealed_secret, context=license_.license_id)
    return LicenseKey(license_.license_id, secret.decode())


async def revoke_license(license_id: str, *, reason: str, actor: str, store: LicenseStore, now: datetime) -> License:
    """Withdraw a license; verifiers hear of it within seconds and refuse its tokens. A repeat changes nothing.

    Raises:
        NoSuchLicense: it was never issued.
    """

    async def work(tx: LicenseTransaction) -> License:
        before = await _existing(tx, license_id)
        events = decide(before, Revoke(reason), actor=actor, now=now)
        if not events:
            return before
        license_ = await tx.save(before, events)
        if changes_what_is_published(events):
            await tx.publish(license_)
        return license_

    return await store.run(work)


async def record_activations(activations: Sequence[Activation], *, tx: LicenseTransaction) -> None:
    """Note which organizations use which licenses; what is already known costs one read.

    Raises:
        NoSuchLicense: a license that was never issued here.
        BoundToAnotherOrganization: a second organization of a self-hosted license (L17).
    """
    for activation in await tx.unknown_activations(activations):
        license_ = await _existing(tx, activation.license_id)
        command = Activate(activation.organization_id)
        events = decide(license_, command, actor=SUBSCRIPTIONS_ACTOR, now=activation.first_seen_at)
        if events:
            await tx.save(license_, events)
        await tx.add_activation(activation, is_exclusive=license_.is_exclusive)


async def show_license(license_id: str, *, as_of: datetime | None, store: LicenseStore) -> LicenseStory:
    """A license with its facts, its organizations and its mail; with ``as_of``, the license as it was believed then.

    Raises:
        NoSuchLicense: it was never issued, or not yet.
    """

    async def work(tx: LicenseTransaction) -> LicenseStory:
        history = [event for event in await tx.history(license_id) if as_of is None or event.at <= as_of]
        return LicenseStory(
            license=await _existing(tx, license_id, as_of=as_of),
            history=history,
            activations=await tx.activations(license_id, limit=ACTIVATIONS_SHOWN_MAX),
            mail=await tx.mail_state(license_id),
        )

    return await store.run(work)


async def list_licenses(wanted: LicenseFilter, *, after_id: str, limit: int, store: LicenseStore) -> Sequence[License]:
    """A page of licenses in the order of their ids."""

    async def work(tx: LicenseTransaction) -> Sequence[License]:
        return await tx.find(wanted, after_id=after_id, limit=limit)

    return await store.run(work)


async def send_license_mail(
    license_id: str, *, store: LicenseStore, sealer: SecretSealer, mailer: Mailer
) -> Mapping[str, str]:
    """Mail the key (V15). The secret is opened for this one mail and kept nowhere.

    A crash between the server's yes and the record of it sends the same mail, with the same Message-ID, again (L15).

    Raises:
        NoSuchLicense: it was never issued.
        MailRefused: the server will never take it.
    """

    async def work(tx: LicenseTransaction) -> License:
        return await _existing(tx, license_id)

    license_ = await store.run(work)
    return await mailer.send(license_mail.compose(license_, open_key(license_, sealer=sealer)))


async def forget_full_buckets(*, store: LicenseStore, now: datetime) -> int:
    """Drop signup buckets that have filled up again."""

    async def work(tx: LicenseTransaction) -> int:
        return await tx.forget_full_buckets(now=now)

    return await store.run(work)


async def _existing(tx: LicenseTransaction, license_id: str, *, as_of: datetime | None = None) -> License:
    license_ = await tx.load(license_id, as_of=as_of)
    if license_ is None:
        raise NoSuchLicense(f"no license has the id {license_id}")
    return license_
