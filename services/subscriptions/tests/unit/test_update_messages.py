"""The message that tells a region of a customer, and the setting that says who hears."""

import base64
import gzip
import json
import random
from datetime import timedelta

import pytest
from pydantic import ValidationError
from quill_subscriptions.settings import SubscriptionsSettings
from quill_subscriptions.wire.billing_update import MESSAGE_BYTES_MAX, UpdateTooLarge, queued_update

HUGE = {"text": "quill " * 60_000}
"""360 kB that pack well."""


def unpacked(body: str) -> dict[str, object]:
    return json.loads(gzip.decompress(base64.b64decode(body)))  # type: ignore[no-any-return]


def test_an_update_is_json_with_type_organization_and_data() -> None:
    message = queued_update("org-1", {"customer": {"name": "Igel & Söhne"}}, packed=False)
    assert message.body == (
        '{"type":"billing_customer_update","organization_id":"org-1","data":{"customer":{"name":"Igel & Söhne"}}}'
    )
    assert "content_encoding" not in message.attributes


@pytest.mark.parametrize(
    ("data", "packed", "is_packed"),
    [
        ({"n": 1}, False, False),
        ({"n": 1}, True, True),
        (HUGE, False, True),
        ({"text": "\uffff"}, False, True),
    ],
)
def test_it_is_packed_on_request_and_where_it_would_not_pass(
    data: dict[str, object], packed: bool, is_packed: bool
) -> None:
    message = queued_update("org-1", data, packed=packed)
    assert (message.attributes.get("content_encoding") == "gzip") is is_packed
    assert message.size_bytes <= MESSAGE_BYTES_MAX
    document = unpacked(message.body) if is_packed else json.loads(message.body)
    assert document == {"type": "billing_customer_update", "organization_id": "org-1", "data": data}


def test_what_does_not_even_fit_packed_is_refused_with_its_sizes() -> None:
    noise = random.Random(7).randbytes(400_000).hex()
    with pytest.raises(UpdateTooLarge, match=r"org-1 has 800\d{3} bytes"):
        queued_update("org-1", {"text": noise}, packed=False)


def settings(queues: str) -> SubscriptionsSettings:
    return SubscriptionsSettings(
        database_url="postgresql://x",
        kafka_bootstrap_servers="x",
        quill_sealing_keys="x",
        billing_updates_queues=queues,
        billing_updates_spacing_seconds=30,
    )


def test_queues_are_named_by_license() -> None:
    found = settings("lic-us=https://sqs/1/us?a=b, lic-eu=https://sqs/1/eu")
    assert found.update_queues == {"lic-us": "https://sqs/1/us?a=b", "lic-eu": "https://sqs/1/eu"}
    assert found.update_policy.license_ids == {"lic-us", "lic-eu"}
    assert found.update_policy.spacing == timedelta(seconds=30)
    assert not settings("").update_policy.license_ids


@pytest.mark.parametrize("queues", ["https://sqs/1/us", "lic-us=sqs", "=https://sqs", "a=http://q,a=http://r"])
def test_a_queue_that_cannot_be_read_stops_the_start(queues: str) -> None:
    with pytest.raises(ValidationError, match="BILLING_UPDATES_QUEUES"):
        settings(queues)
