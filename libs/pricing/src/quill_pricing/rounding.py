"""The only place a fraction becomes money (L11).

Half up: the nearest minor unit, and a half goes away from zero. The magnitude is rounded and the sign put back, so a
credit always mirrors the charge it reverses: 0.5 becomes 1 and -0.5 becomes -1, never 0. Each invoice line is rounded
once, on its own; sums are taken over rounded lines.
"""

from fractions import Fraction


def to_minor_units(exact: Fraction | int, *, sub_units: int = 1) -> int:
    """Round an exact amount to whole minor units, half up on the magnitude.

    Args:
        exact: the amount in sub-units: minor units by default.
        sub_units: how many sub-units make one minor unit, e.g. 10**10 for dollars counted in 10**-12.

    Returns:
        Whole minor units, signed.

    Raises:
        ValueError: ``sub_units`` is not positive.
        TypeError: ``exact`` is neither a fraction nor an integer; a float is never money (L11).
    """
    if sub_units < 1:
        raise ValueError("sub_units must be 1 or more")
    if type(exact) is int:
        return _half_up(exact, sub_units)
    if isinstance(exact, Fraction):
        return _half_up(exact.numerator, exact.denominator * sub_units)
    raise TypeError(f"an exact amount is a Fraction or an int, not {type(exact).__name__} (L11)")


def _half_up(numerator: int, denominator: int) -> int:
    if numerator < 0:
        return -_half_up(-numerator, denominator)
    return (2 * numerator + denominator) // (2 * denominator)
