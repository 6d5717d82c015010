import json
from decimal import Decimal

import pytest
from quill_cli.__main__ import build_app
from quill_contracts.catalog_file import load_catalog
from typer.testing import CliRunner


def quill(*arguments):
    return CliRunner().invoke(build_app(), list(arguments), env={"COLUMNS": "120"})


def quoted(*arguments):
    result = quill("quote", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_twelve_million_events_cost_393_dollars_and_the_lines_sum_to_it():
    document = quoted("product_analytics", "12000000")
    assert list(document) == ["product", "quantity", "currency", "amount_usd", "lines"]
    assert (document["product"], document["quantity"], document["currency"]) == ("product_analytics", 12_000_000, "usd")
    assert document["amount_usd"] == "393.00"
    assert [line["amount_usd"] for line in document["lines"]] == ["0.00", "50.00", "343.00"]
    assert document["lines"][2] == {
        "kind": "tier",
        "tier_index": 2,
        "first_unit": 2_000_001,
        "last_unit": 12_000_000,
        "quantity": 10_000_000,
        "unit_amount": "0.0000343",
        "exact_amount": "343",
        "amount_usd": "343.00",
    }


@pytest.mark.parametrize("product", [product.key for product in load_catalog().products])
@pytest.mark.parametrize("quantity", ["0", "1", "1_000_100", "9223372036854775807"])
def test_every_product_of_the_catalog_is_quoted_with_lines_that_sum_to_its_amount(product, quantity):
    document = quoted(product, quantity)
    assert sum(Decimal(line["amount_usd"]) for line in document["lines"]) == Decimal(document["amount_usd"])
    assert quill("quote", product, quantity).exit_code == 0


def test_a_person_gets_a_table_with_the_breakdown_and_the_total():
    result = quill("quote", "product_analytics", "12_000_000")
    assert result.exit_code == 0
    for text in ("Product analytics", "tier 3", "2,000,001 to 12,000,000", "0.0000343", "343.00", "393.00 USD"):
        assert text in result.stdout


def test_an_unknown_product_is_answered_with_the_known_ones():
    result = quill("quote", "product_analytic", "1")
    assert result.exit_code == 2
    assert "'product'" in result.stderr
    for product in load_catalog().products:
        assert product.key in result.stderr


@pytest.mark.parametrize("quantity", ["-5", "many", "1.5", "1e6", "9223372036854775808", ""])
def test_what_is_not_a_quantity_is_refused_by_the_name_of_the_argument(quantity):
    result = quill("quote", "product_analytics", quantity)
    assert result.exit_code == 2
    assert "'quantity'" in result.stderr
    assert result.stdout == ""


CATALOG = """
version = 1
effective_at = 2026-01-01T00:00:00Z
[[products]]
key = "tea"
name = "Tea [green]"
unit = "cup"
price_id = "tea_1"
[products.price]
model = "graduated"
currency = "eur"
tiers = [{ up_to = 333, unit_amount = "0.015" }, { unit_amount = "UNIT_AMOUNT", flat_amount = "1.00" }]
"""


@pytest.fixture
def catalog_file(tmp_path):
    def write(text):
        path = tmp_path / "catalog.toml"
        path.write_text(text, "utf-8")
        return str(path)

    return write


def test_another_catalog_is_quoted_in_its_own_currency(catalog_file):
    path = catalog_file(CATALOG.replace("UNIT_AMOUNT", "0.005"))
    document = quoted("tea", "334", "--catalog", path)
    assert (document["currency"], document["amount_eur"]) == ("eur", "6.01")
    assert "amount_usd" not in document
    table = quill("quote", "tea", "334", "--catalog", path).stdout
    for text in ("Tea [green]", "tier 2 fee", "6.01 EUR"):
        assert text in table


def test_nothing_used_is_quoted_with_the_flat_fee_of_the_first_tier(catalog_file):
    """K3: a tier may have a flat amount alone, and it is owed without usage."""
    only_flat = CATALOG.replace('unit_amount = "0.015"', 'flat_amount = "49.00"').replace("UNIT_AMOUNT", "0.5")
    document = quoted("tea", "0", "--catalog", catalog_file(only_flat))
    assert (document["amount_eur"], [line["kind"] for line in document["lines"]]) == ("49.00", ["flat_fee"])
    assert "tier 1 fee" in quill("quote", "tea", "0", "--catalog", catalog_file(only_flat)).stdout


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (CATALOG.replace("UNIT_AMOUNT", "0.0000000000001"), "price.tiers.1.unit_amount"),
        (CATALOG.replace("UNIT_AMOUNT", "-1"), "price.tiers.1.unit_amount"),
        (CATALOG.replace("UNIT_AMOUNT", "cheap"), "unit_amount"),
        ("version = ", "not TOML"),
        ("version = 1", "effective_at"),
    ],
)
def test_a_catalog_that_cannot_be_billed_is_refused_by_the_name_of_the_field(catalog_file, text, named):
    result = quill("quote", "tea", "1", "--catalog", catalog_file(text))
    assert result.exit_code == 2
    assert "--catalog" in result.stderr
    assert named in result.stderr


def test_a_catalog_that_is_not_there_is_refused(tmp_path):
    result = quill("quote", "tea", "1", "--catalog", str(tmp_path / "absent.toml"))
    assert result.exit_code == 2
    assert "--catalog" in result.stderr
