"""Only what Stripe signed within the last five minutes is taken in (L19)."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from quill_invoicing.gateways.stripe_webhooks import BadSignature, NotAnEvent, receive

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SECRET = "whsec_current"
EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "invoice.paid",
    "api_version": "2026-10-28.endive",
    "created": 1_793_534_400,
    "data": {"object": {"id": "in_1", "object": "invoice"}},
}


def signature(raw, secret=SECRET, at=NOW):
    stamp = int(at.timestamp())
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + raw, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def raw_of(event=None):
    return json.dumps(EVENT if event is None else event).encode()


def test_a_signed_event_is_read_and_its_bytes_are_kept():
    raw = raw_of()
    webhook = receive(raw, signature(raw), secrets=[SECRET], now=NOW)
    assert (webhook.event_id, webhook.type, webhook.object_id, webhook.raw) == ("evt_1", "invoice.paid", "in_1", raw)


def test_during_rotation_either_secret_and_any_of_several_signatures_will_do():
    raw = raw_of()
    assert receive(raw, signature(raw, "whsec_old"), secrets=[SECRET, "whsec_old"], now=NOW)
    stamp, good = signature(raw).split(",")
    assert receive(raw, f"{stamp},v1={'0' * 64},{good},v0=x", secrets=[SECRET], now=NOW)


@pytest.mark.parametrize("skew", [timedelta(seconds=-300), timedelta(0), timedelta(seconds=300)])
def test_five_minutes_of_skew_either_way_are_tolerated(skew):
    raw = raw_of()
    assert receive(raw, signature(raw, at=NOW + skew), secrets=[SECRET], now=NOW)


@pytest.mark.parametrize("skew", [timedelta(seconds=-301), timedelta(seconds=301), timedelta(days=400)])
def test_a_replay_kept_for_later_is_refused(skew):
    raw = raw_of()
    with pytest.raises(BadSignature, match="five minutes"):
        receive(raw, signature(raw, at=NOW + skew), secrets=[SECRET], now=NOW)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "t=1",
        "v1=00",
        "t=,v1=00",
        "t=\u0661,v1=00",
        "t=1,t=2,v1=00",
        "t=-5,v1=00",
        "garbage",
        "t=99999999999999999999,v1=\u00e9",
    ],
)
def test_a_header_that_is_none_is_refused(header):
    with pytest.raises(BadSignature):
        receive(raw_of(), header, secrets=[SECRET], now=NOW)


def test_a_forged_body_is_refused():
    header = signature(raw_of())
    with pytest.raises(BadSignature, match="no signature fits"):
        receive(raw_of(EVENT | {"type": "invoice.voided"}), header, secrets=[SECRET], now=NOW)
    with pytest.raises(BadSignature):
        receive(raw_of(), signature(raw_of(), "whsec_other"), secrets=[SECRET], now=NOW)
    with pytest.raises(BadSignature):
        receive(raw_of(), header, secrets=[], now=NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        json.dumps(EVENT | {"id": 5}).encode(),
        json.dumps(EVENT | {"id": "x" * 256}).encode(),
        json.dumps(EVENT | {"created": True}).encode(),
        json.dumps(EVENT | {"created": 10**30}).encode(),
        json.dumps(EVENT | {"data": []}).encode(),
    ],
)
def test_signed_garbage_is_refused(body):
    with pytest.raises(NotAnEvent):
        receive(body, signature(body), secrets=[SECRET], now=NOW)
