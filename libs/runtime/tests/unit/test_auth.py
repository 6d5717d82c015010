"""Who is calling: every way a token can be wrong is refused, and the right one is not."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from quill_runtime import auth
from quill_runtime.auth import (
    ApiTokens,
    Forbidden,
    InvalidApiTokens,
    Key,
    Keyring,
    KeysNotRead,
    Unauthorized,
    bearer,
    verify_signed,
    wait_for_key,
)

NOW = datetime(2026, 10, 5, 12, tzinfo=UTC)
SECRET = b"s" * 43
AUDIENCE = "the-audience"
RSA_KEY = rsa.generate_private_key(65537, 2048)


def keyring(**changes: object) -> Keyring:
    ring = Keyring()
    ring.put(
        Key(**{"key_id": "k1", "secret": SECRET, "revoked": False, "attributes": {"type": "cloud"}, **changes}),
        revision=1,
    )
    return ring


def token(*, secret: object = SECRET, algorithm: str = "HS256", without: str = "", **claims: object) -> str:
    content = {"id": "k1", "aud": AUDIENCE, "exp": int((NOW + timedelta(minutes=10)).timestamp()), "org": "a", **claims}
    content.pop(without, None)
    return jwt.encode(content, secret, algorithm=algorithm)


def verify(given_token: str, ring: Keyring | None = None):
    return verify_signed(
        given_token, keyring=keyring() if ring is None else ring, audience=AUDIENCE, key_claim="id", now=NOW
    )


def test_a_good_token_names_its_key_its_attributes_and_its_claims():
    caller = verify(token())
    assert (caller.key_id, caller.attributes["type"], caller.claims["org"]) == ("k1", "cloud", "a")


def unsigned() -> str:
    return jwt.encode({"id": "k1", "aud": AUDIENCE, "exp": int(NOW.timestamp()) + 60}, None, algorithm="none")


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (token(secret=b"x" * 43), "authentication_failed"),
        (token(secret=b"s" * 64, algorithm="HS512"), "authentication_failed"),
        (token(secret=RSA_KEY, algorithm="RS256"), "authentication_failed"),
        (unsigned(), "authentication_failed"),
        (token(aud="somebody-else"), "authentication_failed"),
        (token(without="aud"), "authentication_failed"),
        (token(without="exp"), "authentication_failed"),
        (token(without="id"), "authentication_failed"),
        (token(id="unknown"), "authentication_failed"),
        (token(id=["k1"]), "authentication_failed"),
        (token(exp=int(NOW.timestamp()) - 120), "token_expired"),
        (token(exp=int((NOW + timedelta(minutes=18)).timestamp())), "authentication_failed"),
        (token(iat="now"), "authentication_failed"),
        (token(nbf=True), "authentication_failed"),
        (token(nbf=float("inf")), "authentication_failed"),
        (token(exp="soon"), "authentication_failed"),
        (token(exp=True), "authentication_failed"),
        ("not.a.token", "authentication_failed"),
        ("", "authentication_failed"),
    ],
)
def test_a_token_that_is_not_good_is_refused(made: str, code: str):
    with pytest.raises(Unauthorized) as refused:
        verify(made)
    assert (refused.value.status, refused.value.code) == (401, code)


def sent_at(clock_error: int, *, age: int = 0, **claims: object) -> str:
    """A token of 15 minutes by a sender whose clock is wrong by this many seconds, signed ``age`` seconds ago."""
    signed_at = int(NOW.timestamp()) + clock_error - age
    return token(exp=signed_at + 900, **dict.fromkeys(claims, signed_at))


@pytest.mark.parametrize("claims", [(), ("iat",), ("nbf",), ("iat", "nbf")])
@pytest.mark.parametrize(
    ("clock_error", "age", "served"),
    [
        (45, 0, True),
        (120, 0, True),
        (121, 0, False),
        (-45, 0, True),
        (-45, 899, True),
        (-119, 899, True),
        (-121, 900, False),
        (0, 1019, True),
        (0, 1020, False),
        (45, 899, True),
    ],
)
def test_a_wrong_clock_is_served_up_to_two_minutes(clock_error: int, age: int, served: bool, claims: tuple[str, ...]):
    """K12: a sender's clock 45 s fast got 401 for everything."""
    made = sent_at(clock_error, age=age, **dict.fromkeys(claims))
    if served:
        assert verify(made).key_id == "k1"
        return
    with pytest.raises(Unauthorized, match="clock") as refused:
        verify(made)
    assert refused.value.status == 401


def test_a_fast_clock_is_told_by_the_claim_that_shows_it():
    """K12: the refusal names the claim and the fix."""
    with pytest.raises(Unauthorized, match=r"^iat: is 300 s ahead of our clock, .* set the sender's clock$"):
        verify(token(iat=int(NOW.timestamp()) + 300))
    with pytest.raises(Unauthorized, match=r"^exp: is more than 15 minutes ahead of our clock"):
        verify(sent_at(121))


def test_a_token_is_good_until_its_leeway_ends():
    assert verify(token(exp=int(NOW.timestamp()) + 60)).good_until == NOW.timestamp() + 180


def test_a_revoked_or_expired_key_signs_no_more():
    with pytest.raises(Unauthorized, match="revoked"):
        verify(token(), keyring(revoked=True))
    with pytest.raises(Unauthorized, match="expired"):
        verify(token(), keyring(expires_at=NOW))


def test_no_token_is_judged_before_all_keys_were_read():
    """A good token is not refused, and a revoked key's not taken, because a process has just started."""
    is_read = False
    ring = keyring()
    ring.is_read = lambda: is_read
    for made in (token(), token(secret=b"x" * 43)):
        with pytest.raises(KeysNotRead) as refusal:
            verify(made, ring)
        assert (refusal.value.status, refusal.value.headers) == (503, {"Retry-After": "1"})
    is_read = True
    assert verify(token(), ring).key_id == "k1"


def test_an_older_revision_of_a_key_never_replaces_a_newer_one():
    ring = keyring(revoked=True)
    ring.put(Key("k1", SECRET, revoked=False), revision=1)
    with pytest.raises(Unauthorized):
        verify(token(), ring)


async def wait(ring: Keyring, given_token: str) -> None:
    await wait_for_key(given_token, keyring=ring, key_claim="id")


async def test_a_token_waits_for_a_key_that_is_on_its_way():
    """K15."""
    ring = Keyring()
    ring.is_current = lambda: pytest.fail("the key came; there is nothing to ask")
    waiting = [asyncio.create_task(wait(ring, token())) for _ in range(3)]
    await asyncio.sleep(0.01)
    ring.put(Key("another", SECRET, revoked=False), revision=1)
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    ring.put(Key("k1", SECRET, revoked=False), revision=1)
    async with asyncio.timeout(0.5):
        await asyncio.gather(*waiting)
    assert verify(token(), ring).key_id == "k1"


@pytest.mark.parametrize("is_current", [True, False])
async def test_a_key_is_unknown_only_if_all_published_keys_were_read(is_current: bool, monkeypatch):
    """K15: 401 is final for PostHog's client, so it is never said before it is certain."""
    monkeypatch.setattr(auth, "KEY_WAIT_SECONDS", 0.01)
    ring = Keyring()

    async def answer() -> bool:
        return is_current

    ring.is_current = answer
    if is_current:
        await wait(ring, token())
        with pytest.raises(Unauthorized):
            verify(token(), ring)
    else:
        with pytest.raises(KeysNotRead):
            await wait(ring, token())
    assert ring.waiting == 0


async def test_tokens_that_wait_for_keys_are_bounded(monkeypatch):
    """K15: strangers' tokens wait too, and must not use up the process."""
    monkeypatch.setattr(auth, "WAITING_MAX", 5)
    ring = Keyring()
    ring.is_current = lambda: asyncio.sleep(0, True)
    waiting = [asyncio.create_task(wait(ring, token(id=f"unknown-{n}"))) for n in range(5)]
    await asyncio.sleep(0.01)
    with pytest.raises(KeysNotRead):
        await wait(ring, token())
    ring.put(Key("k1", SECRET, revoked=False), revision=1)
    await wait(ring, token())
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert ring.waiting == 0


@pytest.mark.parametrize("given_token", ["not.a.token", "", token(id=["k1"]), token(without="id")])
async def test_a_token_without_a_readable_key_waits_for_nothing(given_token: str):
    ring = Keyring()
    ring.is_current = lambda: pytest.fail("there is no key to wait for")
    await wait(ring, given_token)


@given(st.data())
def test_any_change_of_any_character_is_refused(data: st.DataObject):
    good = token()
    at = data.draw(st.integers(0, len(good) - 2))
    other = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."))
    changed = good[:at] + other + good[at + 1 :]
    if changed != good:
        with pytest.raises(Unauthorized):
            verify(changed)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer " + "x" * 9000])
def test_a_header_without_a_usable_token_is_refused(header: str | None):
    with pytest.raises(Unauthorized):
        bearer(header)


def test_a_static_token_is_known_by_its_hash_and_held_to_its_scope():
    tokens = ApiTokens.parse(f"ops:operator:{hashlib.sha256(b'secret').hexdigest()}, eu:service:{'0' * 64}")
    assert tokens.require("Bearer secret", "operator").name == "ops"
    with pytest.raises(Unauthorized):
        tokens.require("Bearer other", "operator")
    with pytest.raises(Forbidden, match="service"):
        tokens.require("Bearer secret", "service")


@pytest.mark.parametrize("configured", ["ops", "ops:operator", "ops:operator:zz", "ops:operator:00", ":x:" + "0" * 64])
def test_a_wrong_configuration_of_tokens_is_named(configured: str):
    with pytest.raises(InvalidApiTokens):
        ApiTokens.parse(configured)
