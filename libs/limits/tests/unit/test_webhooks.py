"""What a receiver accepts: the published vector, two secrets, five minutes; and no byte that was altered."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_limits.webhooks import NotFromQuill, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
BODY = b'{"test": 2432232314}'
AT = datetime.fromtimestamp(1614265330, UTC)
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
SIGNATURE = HEADERS["webhook-signature"]


def test_the_published_vector_of_standard_webhooks_is_accepted():
    assert verify([SECRET], HEADERS, BODY, AT) == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert verify([SECRET.removeprefix("whsec_")], HEADERS, BODY, AT)
    assert verify([OTHER, SECRET], {name.title(): value for name, value in HEADERS.items()}, BODY, AT)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"webhook-id": None}, "webhook-id is missing"),
        ({"webhook-timestamp": None}, "webhook-timestamp is missing"),
        ({"webhook-signature": None}, "webhook-signature is missing"),
        ({"webhook-id": "msg_other"}, "no signature fits"),
        ({"webhook-timestamp": "1614265331"}, "no signature fits"),
        ({"webhook-timestamp": "-1614265330"}, "number of seconds"),
        ({"webhook-timestamp": "1614265330.0"}, "number of seconds"),
        ({"webhook-timestamp": "²"}, "number of seconds"),
        ({"webhook-timestamp": "9" * 40}, "number of seconds"),
        ({"webhook-signature": ""}, "no signature fits"),
        ({"webhook-signature": SIGNATURE.replace("v1,", "v2,")}, "no signature fits"),
        ({"webhook-signature": SIGNATURE.replace("v1,", "")}, "no signature fits"),
        ({"webhook-signature": SIGNATURE[:-1]}, "no signature fits"),
        ({"webhook-signature": "v1,ä\udcff"}, "no signature fits"),
    ],
)
def test_what_is_missing_or_altered_is_refused(change, says):
    headers = {name: value for name, value in {**HEADERS, **change}.items() if value is not None}
    with pytest.raises(NotFromQuill, match=says):
        verify([SECRET], headers, BODY, AT)


@pytest.mark.parametrize(("seconds", "fits"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_five_minutes_either_way_are_tolerated(seconds, fits):
    now = AT + timedelta(seconds=seconds)
    if fits:
        assert verify([SECRET], HEADERS, BODY, now)
    else:
        with pytest.raises(NotFromQuill, match="five minutes"):
            verify([SECRET], HEADERS, BODY, now)


def test_one_signature_of_several_is_enough_whichever_secret_made_it():
    signed = {**HEADERS, "webhook-signature": f"v1a,xx v1,{base64.b64encode(b'n' * 32).decode()} {SIGNATURE}"}
    assert verify([SECRET], signed, BODY, AT)
    with pytest.raises(NotFromQuill):
        verify([OTHER], signed, BODY, AT)
    with pytest.raises(NotFromQuill):
        verify([], signed, BODY, AT)


@pytest.mark.parametrize("secret", ["whsec_", "", "whsec_***", "whsec_a"])
def test_what_is_no_secret_is_said_to_be_none(secret):
    with pytest.raises(ValueError, match="webhook secret"):
        verify([secret], HEADERS, BODY, AT)


@given(st.binary(max_size=50), st.integers(0, 10**6), st.integers(1, 255))
def test_no_altered_byte_is_accepted(body, place, change):
    signed = b"msg_1.1614265330." + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": "1614265330", "webhook-signature": f"v1,{signature}"}
    assert verify([SECRET], headers, body, AT) == "msg_1"
    altered = bytearray(body or b"x")
    altered[place % len(altered)] ^= change
    with pytest.raises(NotFromQuill):
        verify([SECRET], headers, bytes(altered), AT)


@given(st.dictionaries(st.sampled_from(list(HEADERS)), st.text(max_size=40)), st.binary(max_size=20))
def test_whatever_comes_is_refused_and_nothing_else_is_raised(headers, body):
    with pytest.raises(NotFromQuill):
        verify([SECRET], headers, body, AT)
