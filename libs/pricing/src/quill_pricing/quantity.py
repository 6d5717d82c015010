"""Quantities: whole units of a meter's smallest unit."""

QUANTITY_MAX = 2**63 - 1
"""The largest quantity that can be stored, sent and rated; anything above it is a mistake, not usage."""


class InvalidQuantity(ValueError):
    """The value is not a whole number of units between 0 and ``QUANTITY_MAX``."""


def check_quantity(value: object) -> int:
    """Return the value if it is a quantity.

    Raises:
        InvalidQuantity: it is a bool, a float, any other type, negative, or above ``QUANTITY_MAX``.
    """
    if type(value) is not int:
        raise InvalidQuantity(f"a quantity is an int of whole units, not {type(value).__name__}")
    if value < 0:
        raise InvalidQuantity("a quantity is never negative")
    if value > QUANTITY_MAX:
        raise InvalidQuantity(f"a quantity is at most {QUANTITY_MAX}")
    return value
