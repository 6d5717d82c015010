"""Currencies and how many decimal places their minor unit has."""

_EXPONENTS = (
    dict.fromkeys(("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"), 0)
    | dict.fromkeys(
        (
            *("aed", "ars", "aud", "brl", "cad", "chf", "cny", "cop", "czk", "dkk", "eur", "gbp", "hkd", "huf", "idr"),
            *("ils", "inr", "mxn", "myr", "nok", "nzd", "php", "pln", "ron", "sar", "sek", "sgd", "thb", "try", "twd"),
            *("uah", "usd", "zar"),
        ),
        2,
    )
    | dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), 3)
)


class UnknownCurrency(ValueError):
    """The code is not one Quill can bill in: how many places its minor unit has would be a guess."""

    def __init__(self, currency: object) -> None:
        super().__init__(f"unknown currency {currency!r}; give a lower-case ISO 4217 code such as 'usd'")


def minor_unit_places(currency: str) -> int:
    """Decimal places of a currency's minor unit: 2 for ``usd`` (cents), 0 for ``jpy``, 3 for ``kwd``.

    Raises:
        UnknownCurrency: the code is not listed.
    """
    places = _EXPONENTS.get(currency)
    if places is None:
        raise UnknownCurrency(currency)
    return places
