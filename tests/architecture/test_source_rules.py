"""Rules of the house that no linter knows. Each names what to do instead."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = [path for folder in ("libs", "services", "apps") for path in sorted((ROOT / folder).glob("*/src/**/*.py"))]
PURE = [path for path in SHIPPED if "domain" in path.parts or "quill_pricing" in path.parts]
BELOW_ENTRY_POINTS = [path for path in SHIPPED if path in PURE or "usecases" in path.as_posix()]
VAGUE_NAMES = {"utils", "helpers", "common", "manager", "processor", "misc"}
CLOCKS_AND_DICE = {"now", "utcnow", "today", "time", "time_ns", "monotonic", "uuid1", "uuid4", "urandom", "token_bytes"}
CLOCK_OWNERS = {"datetime", "date", "time", "uuid", "os", "secrets", "random"}


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def test_the_rules_look_at_every_service_and_library():
    names = {path.parts[path.parts.index("src") + 1] for path in SHIPPED}
    assert {"quill_usage_ingest", "quill_pricing", "quill_runtime", "quill_cli"} <= names
    assert {"quill_quota_limiter", "quill_subscriptions", "quill_invoicing", "quill_licensing"} <= names


def test_no_float_is_made_near_money_or_quantity():
    """L11: write the number as an integer in minor units, or as a Decimal from a string."""
    found = []
    for path in PURE + [p for p in SHIPPED if "quill_contracts" in p.parts]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            is_literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
            is_name = isinstance(node, ast.Name) and node.id == "float" and not _only_refused(path, node)
            if is_literal or is_name:
                found.append(place(path, node))
    assert found == []


def _only_refused(path: Path, node: ast.Name) -> bool:
    """`isinstance(x, float)` refuses floats; that is the opposite of making one."""
    return any(
        isinstance(call.func, ast.Name)
        and call.func.id == "isinstance"
        and node.lineno in range(call.lineno, (call.end_lineno or 0) + 1)
        for call in calls(path)
    )


def test_no_clock_or_dice_below_an_entry_point():
    """L21: take `now` (or the id) as an argument; the entry point reads it once."""
    found = []
    for path in BELOW_ENTRY_POINTS:
        for call in calls(path):
            function = call.func
            if (
                isinstance(function, ast.Attribute)
                and function.attr in CLOCKS_AND_DICE
                and isinstance(function.value, ast.Name)
                and function.value.id in CLOCK_OWNERS
            ):
                found.append(place(path, call))
    assert found == []


def test_every_subscriber_names_its_ack_policy():
    """FastStream's default commits before the work (reliability F1): pass ack_policy=AckPolicy.MANUAL."""
    found = []
    seen = 0
    for path in SHIPPED:
        for call in calls(path):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "subscriber":
                seen += 1
                policies = [keyword.value for keyword in call.keywords if keyword.arg == "ack_policy"]
                if [ast.unparse(policy) for policy in policies] != ["AckPolicy.MANUAL"]:
                    found.append(place(path, call))
    assert seen, "the rule must have something to look at"
    assert found == []


def test_nobody_sets_stripes_global_key():
    """Build a StripeClient in the gateway; a global key reaches code that should not have it."""
    found = [
        place(path, node)
        for path in SHIPPED
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assign) and any("stripe.api_key" in ast.unparse(target) for target in node.targets)
    ]
    assert found == []


def test_no_module_has_a_name_that_collects_everything():
    found = [str(path.relative_to(ROOT)) for path in SHIPPED if path.stem in VAGUE_NAMES]
    assert found == []


def test_no_placeholder_is_shipped():
    words = ("NotImplementedError", "TODO", "FIXME", "XXX")
    found = [
        f"{path.relative_to(ROOT)}: {word}" for path in SHIPPED for word in words if word in path.read_text("utf-8")
    ]
    assert found == []


@pytest.mark.parametrize("service", ["usage-ingest", "quota-limiter", "subscriptions", "invoicing", "licensing"])
def test_every_service_has_the_same_inner_shape(service: str):
    package = ROOT / "services" / service / "src" / f"quill_{service.replace('-', '_')}"
    present = {path.stem if path.suffix == ".py" else path.name for path in package.iterdir()}
    expected = {"__main__", "app", "settings", "api", "wire", "usecases", "ports", "domain", "store", "migrations"}
    assert expected <= present
