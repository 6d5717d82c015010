"""The one definition of a quota: the quantity at which the limiter stops a customer's meter."""

from quill_pricing.budget import greatest_quantity_within
from quill_pricing.money import Money
from quill_pricing.price import Price
from quill_pricing.quantity import check_quantity


def quota_for(
    *,
    price: Price | None,
    allowance: int | None,
    subscribed: bool,
    billing_limit: Money | None,
    in_trial: bool = False,
) -> int | None:
    """The quota of one meter for one billing period, a pure function of its terms (L7).

    * Without a subscription the quota is the allowance: nobody pays for more. A meter without a free tier has quota 0:
      it is not part of the free plan, and its first unit is already too many.
    * A free trial that includes the product lifts that quota while it runs; a billing limit it does not lift.
    * Subscribed without a billing limit the quota is unlimited: ``limit: null`` of the wire contract, section 3.
    * Subscribed with a billing limit in money it is the greatest quantity whose rated amount stays within the limit,
      never below the allowance; billed usage then cannot cost more than the limit (L12), and a limit that is raised,
      lowered or removed changes the quota at once, since nothing else is remembered (L9).
    * A subscribed meter that has no price cannot reach a billing limit: unlimited.

    Args:
        price: what the customer pays for the meter; None if nothing.
        allowance: the quantity included per period; None is the same as 0.
        subscribed: whether a subscription covers the meter.
        in_trial: a free trial runs and includes the product.
        billing_limit: the most the customer wants to owe for the meter per period.

    Returns:
        Units, or None for unlimited.

    Raises:
        InvalidQuantity: the allowance is not a quantity.
        CurrencyMismatch: billing limit and price are in two currencies.
    """
    included = check_quantity(allowance or 0)
    if not subscribed:
        return None if in_trial else included
    if billing_limit is None or price is None:
        return None
    return greatest_quantity_within(price=price, budget=billing_limit, at_least=included)
