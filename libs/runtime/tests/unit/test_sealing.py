"""Secrets at rest."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_runtime.sealing import CannotOpen, InvalidSealingKeys, Sealer

OLD = "old:" + base64.urlsafe_b64encode(b"o" * 32).decode().rstrip("=")
NEW = "new:" + base64.urlsafe_b64encode(b"n" * 32).decode()


@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_was_sealed_opens_with_the_same_context(secret: bytes, context: str):
    sealer = Sealer.parse(NEW)
    assert sealer.open(sealer.seal(secret, context=context), context=context) == secret


def test_after_a_rotation_old_secrets_still_open_and_new_ones_use_the_new_key():
    sealed = Sealer.parse(OLD).seal(b"secret", context="a")
    rotated = Sealer.parse(f"{NEW},{OLD}")
    assert rotated.open(sealed, context="a") == b"secret"
    assert rotated.seal(b"secret", context="a").startswith("v1.new.")


def test_a_secret_moved_to_another_context_does_not_open():
    sealer = Sealer.parse(NEW)
    with pytest.raises(CannotOpen):
        sealer.open(sealer.seal(b"secret", context="a"), context="b")


@pytest.mark.parametrize("sealed", ["", "v1", "v1.new.", "v1.new.AAAA", "v2.new.AAAA", "v1.gone.AAAA", "v1.new.é"])
def test_what_is_not_ours_does_not_open(sealed: str):
    with pytest.raises(CannotOpen):
        Sealer.parse(NEW).open(sealed, context="a")


@given(st.integers(0, 60), st.integers(1, 255))
def test_any_altered_byte_is_noticed(at: int, change: int):
    sealer = Sealer.parse(NEW)
    version, key_id, encoded = sealer.seal(b"s" * 43, context="a").split(".")
    raw = bytearray(base64.urlsafe_b64decode(encoded))
    raw[at] ^= change
    with pytest.raises(CannotOpen):
        sealer.open(f"{version}.{key_id}.{base64.urlsafe_b64encode(bytes(raw)).decode()}", context="a")


@pytest.mark.parametrize("configured", ["", "k", "k:", "k:AAAA", "a.b:" + "A" * 43, ":" + "A" * 43])
def test_unusable_keys_stop_the_start(configured: str):
    with pytest.raises(InvalidSealingKeys):
        Sealer.parse(configured)


def test_a_sealer_does_not_print_its_keys():
    assert "nnnn" not in repr(Sealer.parse(NEW))
