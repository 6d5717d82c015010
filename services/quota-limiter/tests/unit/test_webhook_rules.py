"""Webhooks: what is signed, where they may go, when they are tried again, when an endpoint is disabled."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_quota_limiter.domain.webhook_address import RefusedUrl, address_of, refusal_of
from quill_quota_limiter.domain.webhook_delivery import (
    GIVE_UP_AFTER,
    WAITS_SECONDS,
    DeliveryOutcome,
    delivery_id_of,
    plan,
    wait_before,
)
from quill_quota_limiter.domain.webhook_endpoint import FAILING_MAX, WebhookEndpoint
from quill_quota_limiter.gateways.webhook_signature import signed_headers

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
ENDPOINT = WebhookEndpoint("whe_1", "https://x.example/", "", ("limits.transition",), None, "sealed-1", NOW)
DELIVERY = plan(
    endpoint_id="whe_1",
    event="limits.transition",
    fact_id="acme/events/1",
    organization_id="acme",
    body=b"{}",
    now=NOW,
)


def test_the_published_vector_of_standard_webhooks_is_signed_alike():

    headers = signed_headers(
        delivery_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        body=b'{"test": 2432232314}',
        secrets=[base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        now=datetime.fromtimestamp(1614265330, UTC),
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("8.8.8.8", None),
        ("2606:4700::1111", None),
        ("::ffff:8.8.8.8", None),
        ("64:ff9b::8.8.8.8", None),
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::10.0.0.1", "private"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "private"),
        ("fec0::1", "private"),
        ("169.254.169.254", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("168.63.129.16", "cloud"),
        ("100.100.100.200", "public internet"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("0.1.2.3", "private"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("192.0.2.1", "private"),
        ("198.18.0.1", "private"),
        ("2002:7f00:1::", "tunnel"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "tunnel"),
        ("::7f00:1", "public internet"),
        ("somewhere", "not an IP address"),
    ],
)
def test_only_public_addresses_are_reached(address, word):
    refusal = refusal_of(address)
    assert refusal is None if word is None else word in refusal


@given(st.ip_addresses(v=4, network="0.0.0.0/0"))
def test_an_address_is_judged_alike_however_it_is_written(address):
    assert refusal_of(f"::ffff:{address}") == refusal_of(f"64:ff9b::{address}") == refusal_of(str(address))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://x.example/", "https://"),
        ("ftp://x.example/", "https://"),
        ("//x.example/", "https://"),
        ("https://", "not a host"),
        ("https:///path", "not a host"),
        ("https://user@x.example/", "user or password"),
        ("https://user:pass@x.example/", "user or password"),
        ("https://@x.example/", "user or password"),
        ("https://x.example\\@evil.example/", "backslash"),
        ("https://x.example/#part", "fragment"),
        ("https://x.example/a b", "visible ASCII"),
        ("https://x.example/\r\nHost: y", "visible ASCII"),
        ("https://münchen.example/", "xn--"),
        ("https://x.example:25/", "port 25"),
        ("https://x.example:80/", "port 80"),
        ("https://x.example:0/", "port 0"),
        ("https://x.example:99999/", "not a URL"),
        ("https://[::1%25lo]/", "not a host"),
        ("https://[x]/", "not a"),
        ("https://x..example/", "not a host"),
        ("https://x.example/" + "a" * 2_000, "2,000"),
    ],
)
def test_a_url_that_hides_where_it_goes_is_refused(url, says):
    with pytest.raises(RefusedUrl, match=says.replace("(", r"\(")):
        address_of(url, allow_http=False)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://x.example", ("https", "x.example", 443, "/", "x.example")),
        ("https://X.Example:443/a?b=c", ("https", "x.example", 443, "/a?b=c", "x.example")),
        ("https://x.example:8443/", ("https", "x.example", 8443, "/", "x.example:8443")),
        ("https://[2606:4700::1111]/", ("https", "2606:4700::1111", 443, "/", "[2606:4700::1111]")),
        ("http://127.0.0.1:8000/?q", ("http", "127.0.0.1", 8000, "/?q", "127.0.0.1:8000")),
    ],
)
def test_a_url_is_taken_apart_once(url, parts):
    found = address_of(url, allow_http=True)
    assert (found.scheme, found.host, found.port, found.target, found.authority) == parts


@pytest.mark.parametrize(("tries", "seconds"), [*enumerate(WAITS_SECONDS, start=1), (9, 21_600), (500, 21_600)])
def test_each_wait_lies_within_a_fifth_of_its_step_and_is_always_the_same(tries, seconds):
    waits = [wait_before(f"msg_{number}", after_attempts=tries).total_seconds() for number in range(200)]
    assert all(0.8 * seconds <= wait <= 1.2 * seconds for wait in waits)
    assert max(waits) - min(waits) > 0.3 * seconds
    assert waits == [wait_before(f"msg_{number}", after_attempts=tries).total_seconds() for number in range(200)]


def test_a_delivery_that_nobody_takes_is_tried_for_three_days_and_then_given_up():
    delivery, now, tries = DELIVERY, NOW, 0
    while delivery.status == "pending":
        now = delivery.due_at
        delivery = delivery.leased(now + timedelta(minutes=1)).after(DeliveryOutcome(status=500), now)
        tries += 1
        assert tries < 50
    assert NOW + GIVE_UP_AFTER - timedelta(hours=8) < now <= NOW + GIVE_UP_AFTER
    assert (delivery.status, delivery.last_status, delivery.finished_at) == ("failed", 500, now)
    assert 15 <= tries <= 22
    again = delivery.replayed(now)
    assert (again.delivery_id, again.body, again.status) == (DELIVERY.delivery_id, DELIVERY.body, "pending")


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, "delivered"),
        (204, "delivered"),
        (299, "delivered"),
        (301, "pending"),
        (400, "pending"),
        (404, "pending"),
        (410, "failed"),
        (429, "pending"),
        (500, "pending"),
        (None, "pending"),
        (199, "pending"),
        (300, "pending"),
    ],
)
def test_only_2xx_is_taken_and_only_410_is_final(status, verdict):
    assert DELIVERY.leased(NOW).after(DeliveryOutcome(status=status), NOW).status == verdict


def test_ids_name_endpoint_and_fact():
    ids = {
        delivery_id_of(endpoint, event, fact)
        for endpoint in ("whe_1", "whe_2")
        for event in ("limits.transition", "limits.threshold")
        for fact in ("acme/events/1", "acme/events/11", "acme/events/2")
    }
    assert len(ids) == 12
    assert all("." not in each for each in ids)
    assert delivery_id_of("whe_1", "limits.transition", "acme/events/1") == DELIVERY.delivery_id


def test_an_endpoint_that_fails_for_days_is_disabled_and_one_success_forgives():
    failing = ENDPOINT.after_failure(is_gone=False, now=NOW)
    late = NOW + FAILING_MAX
    assert failing.after_failure(is_gone=False, now=late - timedelta(seconds=1)).is_enabled
    assert failing.after_failure(is_gone=False, now=late).disabled_because == "failing"
    assert failing.after_success().after_failure(is_gone=False, now=late).is_enabled
    assert ENDPOINT.after_failure(is_gone=True, now=NOW).disabled_because == "gone"
    assert ENDPOINT.after_failure(is_gone=True, now=NOW).enabled() == ENDPOINT
    by_person = replace(ENDPOINT, disabled_because="person")
    assert by_person.after_failure(is_gone=True, now=NOW).disabled_because == "person"


def test_the_secret_before_signs_until_its_time_is_over():
    rotated = ENDPOINT.rotated("sealed-2", previous_until=NOW + timedelta(hours=24))
    assert ENDPOINT.signing(NOW) == ("sealed-1",)
    assert rotated.signing(NOW + timedelta(hours=23)) == ("sealed-2", "sealed-1")
    assert rotated.signing(NOW + timedelta(hours=24)) == ("sealed-2",)
    assert rotated.rotated("sealed-3", previous_until=NOW + timedelta(hours=48)).signing(NOW) == (
        "sealed-3",
        "sealed-2",
    )


@pytest.mark.parametrize(
    ("events", "of", "event", "organization", "heard"),
    [
        (("limits.transition",), None, "limits.transition", "acme", True),
        (("limits.transition",), None, "limits.threshold", "acme", False),
        (("limits.transition",), "acme", "limits.transition", "acme", True),
        (("limits.transition",), "acme", "limits.transition", "beta", False),
    ],
)
def test_an_endpoint_hears_its_events_of_its_organization(events, of, event, organization, heard):
    endpoint = replace(ENDPOINT, events=events, organization_id=of)
    assert endpoint.hears(event, organization) is heard
    assert not replace(endpoint, disabled_because="person").hears(event, organization)
