import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_licensing.domain.license_key import LicenseKey, MalformedLicenseKey

SECRET = "s" * 43


@given(st.binary(min_size=12, max_size=12), st.binary(min_size=32, max_size=32))
def test_a_key_made_of_random_bytes_reads_back_and_suits_every_reader(id_bytes, secret_bytes):
    key = LicenseKey.from_random(id_bytes=id_bytes, secret_bytes=secret_bytes)
    assert LicenseKey.parse(f"  {key.text}\n") == key
    assert key.text.count("::") == 1
    assert len(key.text) <= 200
    assert len(key.secret) == 43
    assert key.license_id[0].isalpha(), "a command line must not take it for an option"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "::",
        "lic_0123456789abcdef",
        f"short::{SECRET}",
        f"lic_0123456789abcdef::{SECRET}x",
        f"lic_0123456789abcdef::{SECRET[:-1]}",
        f"lic_0123456789abcdef::{SECRET[:-1]}=",
        f"lic_0123456789abcdef:::{SECRET[:-1]}",
        f"lic_0123456789 bcdef::{SECRET}",
        f"lic_0123456789abcdef::{SECRET[:-1]}\n::x",
    ],
)
def test_anything_else_is_refused_without_repeating_it(text):
    with pytest.raises(MalformedLicenseKey) as refused:
        LicenseKey.parse(text)
    assert SECRET[:-1] not in str(refused.value)


def test_a_key_does_not_show_its_secret_when_printed():
    assert SECRET not in repr(LicenseKey("lic_0123456789abcdef", SECRET))


@pytest.mark.parametrize(("id_bytes", "secret_bytes"), [(b"x" * 11, b"y" * 32), (b"x" * 12, b"y" * 31)])
def test_too_little_randomness_is_refused(id_bytes, secret_bytes):
    with pytest.raises(MalformedLicenseKey):
        LicenseKey.from_random(id_bytes=id_bytes, secret_bytes=secret_bytes)
