"""A key whose stored answer is a failure is left for the next one, after looking (K10)."""

import pytest
import stripe
from quill_invoicing.domain.collection import Attempt
from quill_invoicing.gateways.stripe_writes import asked, nothing_to_find, options, write
from quill_invoicing.ports import RailRefused

STORED_500 = stripe.APIError("stored", http_status=500)
OTHER_PARAMETERS = stripe.IdempotencyError("other parameters", http_status=400)


class Stripe:
    """Remembers the first answer of each key, as Stripe does; ``fails`` are the answers of keys to come."""

    def __init__(self, *fails):
        self.fails = list(fails)
        self.stored = {}
        self.made = []
        self.looked = 0

    async def send(self, chosen):
        key = chosen["idempotency_key"]
        if key not in self.stored:
            self.stored[key] = self.fails.pop(0) if self.fails else f"object of {key}"
            if isinstance(self.stored[key], str):
                self.made.append(self.stored[key])
        if isinstance(self.stored[key], Exception):
            raise self.stored[key]
        return self.stored[key]

    async def find(self):
        self.looked += 1
        return self.made[0] if self.made else None

    async def write(self, number, find=None):
        return await write(Attempt("op", number), send=self.send, find=find or self.find)


@pytest.mark.parametrize("failure", [STORED_500, OTHER_PARAMETERS], ids=["stored 500", "other parameters"])
async def test_a_stored_failure_costs_one_key_and_no_further_try(failure):
    """K10: all tries of a day failed under one key."""
    at_stripe = Stripe(failure)
    assert await at_stripe.write(1) == "object of op:again-1"
    assert at_stripe.looked == 1, "it looked before it used another key"


async def test_each_try_has_a_key_that_none_before_it_had():
    at_stripe = Stripe(*[STORED_500] * 12)
    for number in range(1, 12):
        with pytest.raises(stripe.APIError):
            await at_stripe.write(number)
    assert await at_stripe.write(12) == "object of op:again-12"


async def test_what_a_failed_request_made_all_the_same_is_found():
    at_stripe = Stripe()
    await at_stripe.write(1)
    at_stripe.stored["op"] = STORED_500
    assert await at_stripe.write(1) == "object of op"
    assert at_stripe.made == ["object of op"]


async def test_a_look_up_that_lags_makes_nothing_twice():
    """The walk over the keys comes to the one that succeeded, and Stripe replays its answer."""
    at_stripe = Stripe(STORED_500)
    first = await at_stripe.write(1, find=nothing_to_find)
    assert await at_stripe.write(2, find=nothing_to_find) == first
    assert len(at_stripe.made) == 1


@pytest.mark.parametrize(
    "unknown",
    [
        stripe.APIConnectionError("timeout"),
        stripe.APIError("bad gateway", http_status=502),
        stripe.APIError("unavailable", http_status=503),
        stripe.APIError("in use", http_status=409),
        stripe.RateLimitError("slow down", http_status=429),
    ],
    ids=str,
)
async def test_an_answer_that_is_not_stored_keeps_the_key(unknown):
    """The request may still be running: another key could do it twice."""
    at_stripe = Stripe(unknown)
    with pytest.raises(type(unknown)):
        await at_stripe.write(1)
    assert list(at_stripe.stored) == ["op"]


async def test_a_repeat_looks_before_it_sends():
    at_stripe = Stripe()
    await at_stripe.write(1)
    at_stripe.stored.clear()
    assert await at_stripe.write(2) == "object of op"
    assert at_stripe.stored == {}, "nothing was sent: Stripe forgets keys after a day"


async def test_a_refusal_is_final_and_names_the_request():
    async def refused():
        raise stripe.InvalidRequestError("no such price", "price", code="resource_missing", http_status=400)

    with pytest.raises(RailRefused, match="400 resource_missing"):
        await asked(refused())


def test_keys_stay_within_stripes_bound():
    assert options("op", 0) == {"idempotency_key": "op"}
    assert options("op", 3) == {"idempotency_key": "op:again-3"}
    assert len(options("x" * 250, 0)["idempotency_key"]) == 250
    long = {options("x" * 250, n)["idempotency_key"] for n in (1, 2)} | {options("y\udc80" * 300, 0)["idempotency_key"]}
    assert {len(key) for key in long} == {64}
    assert len(long) == 3
