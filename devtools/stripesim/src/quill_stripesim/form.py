"""Stripe's request encoding: a form whose keys carry brackets, read into nested mappings of strings."""

import re
from typing import Any
from urllib.parse import parse_qsl

from quill_stripesim.stripe_error import StripeError

MAX_FIELDS = 5_000
MAX_DEPTH = 12

_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")


def decode_form(encoded: str) -> dict[str, Any]:
    """Reads `items[0][price]=x` into `{"items": {"0": {"price": "x"}}}`.

    Lists stay mappings by index here: only the parameter's type can tell a list from metadata whose keys are digits.

    Raises:
        StripeError: 400 for more than `MAX_FIELDS` fields, an unreadable key, more than `MAX_DEPTH` brackets, or a key
            that is both a value and a mapping.
    """
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except (ValueError, UnicodeDecodeError) as error:
        raise StripeError(f"Invalid request body: {error}") from error
    decoded: dict[str, Any] = {}
    for key, value in pairs:
        _place(decoded, key, value)
    return decoded


def _place(decoded: dict[str, Any], key: str, value: str) -> None:
    match = _KEY.match(key)
    if match is None:
        raise StripeError(f"Invalid parameter name: {key}", param=key)
    path = [match.group(1), *_BRACKET.findall(match.group(2))]
    if len(path) > MAX_DEPTH:
        raise StripeError(f"Parameter nested too deeply: {key}", param=path[0])
    at = decoded
    for part in path[:-1]:
        nested = at.setdefault(part or str(len(at)), {})
        if not isinstance(nested, dict):
            raise StripeError(f"Parameter is both a value and a mapping: {key}", param=path[0])
        at = nested
    last = path[-1] or str(len(at))
    if isinstance(at.get(last), dict):
        raise StripeError(f"Parameter is both a value and a mapping: {key}", param=path[0])
    at[last] = value
