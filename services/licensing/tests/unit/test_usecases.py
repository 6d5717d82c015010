"""What signup and mail do when things go well, twice, or wrong; on the memory store."""

from datetime import UTC, datetime, timedelta

import pytest
from quill_licensing.domain.license import NoSuchLicense
from quill_licensing.domain.license_key import LicenseKey
from quill_licensing.domain.signup import Signup
from quill_licensing.gateways.memory import MemoryMailer
from quill_licensing.ports import Claim, ClaimConflict, MailRefused, SourceTaken
from quill_licensing.store.memory import MemoryLicenseStore
from quill_licensing.usecases import RepeatTooLate, issue_license, revoke_license, send_license_mail
from quill_runtime.sealing import Sealer

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
SEALER = Sealer({"k": b"k" * 32}, "k")
SIGNUP = Signup("ada@b.example", "Hedgehogs", "scale", None)
CLAIM = Claim("public", "a-key-of-sixteen-characters")


def a_key(number):
    return LicenseKey.from_random(id_bytes=number.to_bytes(12, "big"), secret_bytes=number.to_bytes(32, "big"))


async def issue(store, number, *, signup=SIGNUP, claim=None, now=NOW):
    return await issue_license(
        signup, key=a_key(number), actor="signup:ada@b.example", claim=claim, store=store, sealer=SEALER, now=now
    )


async def test_a_signup_keeps_the_secret_sealed_publishes_it_sealed_and_plans_the_mail():
    store = MemoryLicenseStore()
    issued = await issue(store, 1)
    assert issued.key == a_key(1)
    assert SEALER.open(store.kept.published[0].sealed_secret, context=issued.key.license_id) == a_key(1).secret.encode()
    assert a_key(1).secret not in str(store.kept)
    assert list(store.kept.mails) == [f"license-mail.{issued.key.license_id}"]


async def test_a_sealed_secret_moved_to_another_license_does_not_open():
    store = MemoryLicenseStore()
    issued = await issue(store, 1)
    with pytest.raises(ValueError, match="another context"):
        SEALER.open(issued.license.sealed_secret, context=a_key(2).license_id)


async def test_a_repeat_gives_the_same_key_and_makes_nothing_new():
    store = MemoryLicenseStore()
    first = await issue(store, 1, claim=CLAIM)
    again = await issue(store, 2, claim=CLAIM, now=NOW + timedelta(hours=24))
    assert (again.key, again.is_repeat, first.is_repeat) == (first.key, True, False)
    assert len(store.kept.licenses) == len(store.kept.published) == len(store.kept.mails) == 1


async def test_a_repeat_after_a_day_does_not_show_the_key_again():
    store = MemoryLicenseStore()
    await issue(store, 1, claim=CLAIM)
    with pytest.raises(RepeatTooLate, match="mailed key"):
        await issue(store, 2, claim=CLAIM, now=NOW + timedelta(hours=24, seconds=1))


async def test_the_same_idempotency_key_with_other_content_is_a_conflict():
    store = MemoryLicenseStore()
    await issue(store, 1, claim=CLAIM)
    with pytest.raises(ClaimConflict):
        await issue(store, 2, claim=CLAIM, signup=Signup("eve@b.example", "Hedgehogs", "scale", None))
    assert len(store.kept.licenses) == 1


async def test_without_an_idempotency_key_every_signup_is_a_license_of_its_own():
    """Knowing an e-mail and a name must never be enough to be shown somebody's key."""
    store = MemoryLicenseStore()
    assert (await issue(store, 1)).key != (await issue(store, 2)).key


async def test_a_source_is_free_again_once_its_license_is_revoked():
    store = MemoryLicenseStore()
    named = Signup("ada@b.example", "Hedgehogs", "scale", "home")
    first = await issue(store, 1, signup=named)
    with pytest.raises(SourceTaken):
        await issue(store, 2, signup=named, claim=CLAIM)
    await revoke_license(first.key.license_id, reason="moved", actor="operator:kim", store=store, now=NOW)
    await issue(store, 3, signup=named, claim=CLAIM)
    assert [license_.status for license_ in store.kept.licenses.values()] == ["revoked", "active"]


async def test_the_mail_carries_the_key_and_a_failure_keeps_nothing():
    store, mailer = MemoryLicenseStore(), MemoryMailer(failure=ConnectionRefusedError())
    issued = await issue(store, 1)
    send = {"store": store, "sealer": SEALER, "mailer": mailer}
    with pytest.raises(ConnectionRefusedError):
        await send_license_mail(issued.key.license_id, **send)
    mailer.failure = MailRefused("550")
    with pytest.raises(MailRefused):
        await send_license_mail(issued.key.license_id, **send)
    mailer.failure = None
    await send_license_mail(issued.key.license_id, **send)
    assert [issued.key.text in mail.text for mail in mailer.sent] == [True]
    with pytest.raises(NoSuchLicense):
        await send_license_mail("lic_unknown_unknown", **send)
