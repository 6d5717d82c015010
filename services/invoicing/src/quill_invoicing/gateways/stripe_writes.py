"""How every change at Stripe is made: look first on a repeat, and leave a key whose stored answer is a failure.

Stripe replays the first executed answer of a key for a day, server errors included (a stored 500). The same key then
fails each time. A stored answer says that the request has ended, so a look-up tells what it did: when the effect is
there, that is the result; when it is not, the next key is used. Answers that never came (a timeout, 502, 503) are
repeated under the same key, because the request may still be running.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import stripe

from quill_invoicing.domain.collection import Attempt
from quill_invoicing.ports import RailRefused

KEY_LENGTH_MAX: Final = 255
HTTP_BAD_REQUEST: Final = 400
HTTP_SERVER_ERROR: Final = 500

T = TypeVar("T")
Find = Callable[[], Awaitable[T | None]]
Send = Callable[[stripe.RequestOptions], Awaitable[T]]


async def write(attempt: Attempt, *, send: Send[T], find: Find[T]) -> T:
    """Make one change at Stripe.

    Args:
        attempt: Its key, and which try it is. Try n may use n + 1 keys, so each try can use a key that none before had.
        send: Makes the request with the options given.
        find: Looks whether the effect is there already; None when it is not.

    Raises:
        stripe.StripeError: as ``send`` and ``find`` raise it; a stored failure when every key of this try has one.
    """
    if attempt.is_repeat and (found := await find()) is not None:
        return found
    failure: stripe.StripeError | None = None
    for generation in range(attempt.number + 1):
        try:
            return await send(options(attempt.key, generation))
        except (stripe.APIError, stripe.IdempotencyError) as error:
            if not _is_stored(error):
                raise
            failure = error
        if (found := await find()) is not None:
            return found
    raise failure or AssertionError("a try uses at least one key")


async def nothing_to_find() -> None:
    """For effects that Stripe itself recognises by their content (meter events)."""


async def asked(call: Awaitable[T]) -> T:
    """The answer.

    Raises:
        RailRefused: Stripe will never accept this request (400, 402, 404).
        stripe.StripeError: anything else: the outcome is unknown or will change, so the operation is tried again.
    """
    try:
        return await call
    except (stripe.InvalidRequestError, stripe.CardError) as error:
        raise refusal(error) from error


def refusal(error: stripe.StripeError) -> RailRefused:
    """A refusal in words that an operator can look up at Stripe."""
    return RailRefused(f"{error.http_status} {error.code}: {error.user_message or error} (request {error.request_id})")


def options(key: str, generation: int) -> stripe.RequestOptions:
    """The idempotency key of a generation; one that is too long for Stripe is replaced by its digest."""
    named = key if generation == 0 else f"{key}:again-{generation}"
    if len(named) > KEY_LENGTH_MAX:
        named = hashlib.sha256(named.encode(errors="replace")).hexdigest()
    return {"idempotency_key": named}


def _is_stored(error: stripe.StripeError) -> bool:
    """Whether this key can only answer so: an executed request's 500, or a key first used for other parameters."""
    if isinstance(error, stripe.IdempotencyError):
        return error.http_status == HTTP_BAD_REQUEST
    return error.http_status == HTTP_SERVER_ERROR
