"""Messages are a published product: every golden example parses for ever, documents are fresh, readers are tolerant."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from quill_contracts.catalog_file import InvalidCatalogFile, load_catalog
from quill_contracts.documents import asyncapi, documents, json_schema
from quill_contracts.registry import MESSAGES, UnknownTopic, message_type
from quill_contracts.topics import TOPICS
from quill_contracts.usage import TeamUsageSnapshot, UsageReport

PACKAGE = Path(__file__).parents[2]
GOLDEN = PACKAGE / "golden"
VARIANTS = [path.stem.rpartition(".")[::2] for path in sorted(GOLDEN.glob("*.v[0-9]*.*.json"))]
"""Examples of what a message looks like in another case: topic and the case's name."""


@pytest.mark.parametrize("topic", MESSAGES)
def test_the_golden_example_of_each_version_parses_and_comes_back_the_same(topic: str):
    example = json.loads((GOLDEN / f"{topic}.json").read_text("utf-8"))
    message = MESSAGES[topic].model_validate(example)
    again = json.loads(message.to_bytes())
    assert MESSAGES[topic].model_validate(again) == message
    for name, value in example.items():
        assert name in again, f"{name} was dropped"
        if not isinstance(value, dict | list):
            assert again[name] == value


@pytest.mark.parametrize("topic", MESSAGES)
def test_the_golden_example_matches_the_committed_schema(topic: str):
    schema = json.loads((PACKAGE / "schemas" / f"{topic}.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads((GOLDEN / f"{topic}.json").read_text("utf-8")))


@pytest.mark.parametrize(("topic", "variant"), VARIANTS)
def test_a_further_golden_example_parses_comes_back_the_same_and_matches_the_schema(topic: str, variant: str):
    example = json.loads((GOLDEN / f"{topic}.{variant}.json").read_text("utf-8"))
    assert json.loads(MESSAGES[topic].model_validate(example).to_bytes()) == example
    schema = json.loads((PACKAGE / "schemas" / f"{topic}.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(example)


@pytest.mark.parametrize("topic", MESSAGES)
def test_a_reader_ignores_what_a_newer_producer_adds(topic: str):
    example = json.loads((GOLDEN / f"{topic}.json").read_text("utf-8"))
    assert MESSAGES[topic].model_validate({**example, "added_later": {"x": 1}}) == MESSAGES[topic].model_validate(
        example
    )


@pytest.mark.parametrize("topic", MESSAGES)
def test_every_field_a_reader_requires_stands_in_the_golden_example(topic: str):
    """A new required field would make yesterday's messages unreadable: give it a default, or make a new version."""
    example = json.loads((GOLDEN / f"{topic}.json").read_text("utf-8"))
    assert set(json_schema(topic)["required"]) <= set(example)


def test_generated_documents_are_fresh():
    stale = [str(path) for path, text in documents().items() if (PACKAGE / path).read_text("utf-8") != text]
    assert stale == [], "run: python -m quill_contracts.documents"


def test_no_document_is_left_over():
    expected = {PACKAGE / path for path in documents()}
    assert {*(PACKAGE / "schemas").glob("*.json"), PACKAGE / "asyncapi.json"} == expected


def test_the_asyncapi_document_refers_only_to_what_it_defines():
    document = asyncapi()
    references = {
        message["payload"]["$ref"].rsplit("/", 1)[1]
        for channel in document["channels"].values()
        for message in channel["messages"].values()
    }
    assert references <= set(document["components"]["schemas"])
    assert len(document["channels"]) == 2 * len(TOPICS)


def test_a_topic_has_one_message_and_its_name_ends_in_a_version():
    assert {topic.name for topic in TOPICS} == set(MESSAGES)
    assert all(topic.name.rsplit(".", 1)[1][0] == "v" for topic in TOPICS)


def test_an_unknown_topic_is_named_with_the_known_ones():
    with pytest.raises(UnknownTopic, match=r"nope.*known: .*usage\.reports\.v1"):
        message_type("nope")
    assert message_type("usage.reports.v1.dead").__name__ == "DeadLetter"


def report(**changes: object) -> dict[str, object]:
    return {**json.loads((GOLDEN / "usage.reports.v1.json").read_text("utf-8")), **changes}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"counters": {"event_count_in_period": -1}}, "counters"),
        ({"counters": {"event_count_in_period": 2**70}}, "counters"),
        ({"counters": {"event_count_in_period": 1.5}}, "counters"),
        ({"counters": {"event_count_in_period": True}}, "counters"),
        ({"counters": {"event_count_in_period": "12"}}, "counters"),
        ({"organization_id": ""}, "organization_id"),
        ({"organization_id": "a b"}, "organization_id"),
        ({"as_of": "2026-10-06T03:45:00"}, "as_of"),
        ({"as_of": "2026-10-06T03:45:00+02:00"}, "as_of"),
        ({"completeness": "final"}, "completeness"),
        ({"window_end": "2026-10-05T00:00:00Z"}, ""),
        ({"window_end": "2026-10-07T00:00:00Z"}, ""),
    ],
)
def test_a_report_that_cannot_be_true_is_refused_by_field(changes: dict[str, object], field: str):
    with pytest.raises(ValidationError) as refused:
        UsageReport.model_validate(report(**changes))
    assert str((refused.value.errors()[0]["loc"] or ("",))[0]) == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"team_id": ""}, "team_id"),
        ({"team_id": "1\x002"}, "team_id"),
        ({"team_id": "t" * 201}, "team_id"),
        ({"revision": 0}, "revision"),
        ({"periods": [{"period_start": "2026-10-01T00:00:00Z", "period_end": "2026-11-01T00:00:00Z"}]}, "periods"),
    ],
)
def test_team_usage_that_cannot_be_true_is_refused_by_field(changes: dict[str, object], field: str):
    example = json.loads((GOLDEN / "usage.team-usage.v1.json").read_text("utf-8"))
    with pytest.raises(ValidationError) as refused:
        TeamUsageSnapshot.model_validate({**example, **changes})
    assert refused.value.errors()[0]["loc"][0] == field


def test_two_periods_of_a_team_travel_and_no_more():
    example = json.loads((GOLDEN / "usage.team-usage.v1.json").read_text("utf-8"))
    assert len(TeamUsageSnapshot.model_validate(example).periods) == 2
    with pytest.raises(ValidationError, match="at most 2"):
        TeamUsageSnapshot.model_validate({**example, "periods": example["periods"] * 2})


@pytest.mark.parametrize("team_id", ["11", "a/b", "équipe 7"])
def test_the_key_of_team_usage_is_the_organization_and_the_team_parted_at_the_first_slash(team_id: str):
    snapshot = TeamUsageSnapshot(organization_id="acme", team_id=team_id, revision=1, periods=[])
    assert snapshot.key.split("/", 1) == ["acme", team_id]


@given(st.integers(0, 23), st.integers(1, 24))
def test_a_window_lies_within_one_utc_day(start_hour: int, hours: int):
    """Exhaustively: a window is accepted exactly when it does not reach past the midnight that ends its day (L1)."""
    start = datetime(2026, 3, 29, start_hour, tzinfo=UTC)
    window = {"window_start": start.isoformat(), "window_end": (start + timedelta(hours=hours)).isoformat()}
    if start_hour + hours <= 24:
        UsageReport.model_validate(report(**window))
    else:
        with pytest.raises(ValidationError):
            UsageReport.model_validate(report(**window))


def test_the_example_catalog_has_every_kind_of_price():
    catalog = load_catalog()
    assert {product.price.model for product in catalog.products} == {
        "flat",
        "per_unit",
        "package",
        "graduated",
        "volume",
    }
    analytics = catalog.product("product_analytics")
    assert analytics is not None
    assert (analytics.usage_key, analytics.counter, analytics.allowance) == (
        "events",
        "event_count_in_period",
        1_000_000,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[[products]]", "[[products]"), "not TOML"),
        (('usage_key = "recordings"', 'usage_key = "events"'), "'product_analytics' and 'session_replay'"),
        (('unit_amount = "0.00005"', "unit_amount = 0.00005"), "unit_amount"),
        ((', unit_amount = "0.00005"', ""), "tiers.1: .*unit_amount is needed in a tier without a flat_amount"),
        (("[products.price]", "[products.price]\nprorate = false"), "price.prorate: Extra"),
        (('unit_amount = "0.00005"', 'unit_amount = "0.00005", flat = "1.00"'), "tiers.1.flat: Extra"),
        (("[products.price]", "[products.price]\nprorated = false"), "price.prorated: a metered quantity is never"),
        (("[products.price]", '[products.price]\nprorated = "sometimes"'), "price.prorated: .*boolean"),
        (('price_id = "session_replay_', 'price_id = "product_analytics_'), "price_id .* is used by both"),
        (('counter = "event_count_in_period"', ""), "usage_key and counter"),
        (("version = 1", 'version = 1\nextra = "x"'), "extra"),
    ],
)
def test_a_wrong_catalog_file_is_refused_naming_what_is_wrong(tmp_path: Path, change: tuple[str, str], message: str):
    good = (PACKAGE / "src/quill_contracts/catalogs/posthog_2025.toml").read_text("utf-8")
    assert change[0] in good
    path = tmp_path / "catalog.toml"
    path.write_text(good.replace(change[0], change[1], 1), "utf-8")
    with pytest.raises(InvalidCatalogFile, match=message):
        load_catalog(path)


def test_a_tier_may_have_a_flat_amount_alone(tmp_path: Path):
    """K3: its unit amount counts as 0."""
    good = (PACKAGE / "src/quill_contracts/catalogs/posthog_2025.toml").read_text("utf-8")
    path = tmp_path / "catalog.toml"
    path.write_text(good.replace('unit_amount = "0.00005"', 'flat_amount = "49.00"', 1), "utf-8")
    analytics = load_catalog(path).product("product_analytics")
    assert analytics is not None
    assert analytics.price.tiers is not None
    assert (analytics.price.tiers[1].unit_amount, analytics.price.tiers[1].flat_amount) == (None, "49.00")


def test_a_flat_or_licensed_price_may_switch_proration_off(tmp_path: Path):
    """K5: whatever is not metered may."""
    good = (PACKAGE / "src/quill_contracts/catalogs/posthog_2025.toml").read_text("utf-8")
    path = tmp_path / "catalog.toml"
    path.write_text(good.replace('model = "flat"', 'model = "flat"\nprorated = false'), "utf-8")
    flat = [product.price.prorated for product in load_catalog(path).products if product.price.model == "flat"]
    assert flat
    assert not any(flat)


def test_one_counter_may_feed_the_meters_of_two_products(tmp_path: Path):
    """K16: a usage key belongs to one product, a counter does not."""
    good = (PACKAGE / "src/quill_contracts/catalogs/posthog_2025.toml").read_text("utf-8")
    shared = good.replace('counter = "recording_count_in_period"', COUNTER, 1)
    assert shared != good
    path = tmp_path / "catalog.toml"
    path.write_text(shared, "utf-8")
    fed = [product.usage_key for product in load_catalog(path).products if product.counter == "event_count_in_period"]
    assert fed == ["events", "recordings"]


COUNTER = 'counter = "event_count_in_period"'


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        (f"{COUNTER}\ncounts_from = 2026-10-10", "counts_from"),
        (f"{COUNTER}\ncounts_from = 2026-10-10T00:00:00+02:00", "counts_from: .*UTC"),
        (f'{COUNTER}\nevent_meter = {{ type = "t", aggregation = "count" }}', "counter and event_meter: .*remove"),
        ('event_meter = { type = "t", aggregation = "sum" }', "event_meter: .*value: sum needs one; name the member"),
        ('event_meter = { type = "t", aggregation = "count", value = "x" }', "value: count takes none; leave it out"),
        ('event_meter = { type = "t", aggregation = "mean", value = "x" }', "event_meter.aggregation: .*unique_count"),
        ('event_meter = { type = "t", aggregation = "count", decimals = 2 }', "decimals: must be 0 for count"),
        ('event_meter = { type = "t", aggregation = "sum", value = "x", decimals = 13 }', "event_meter.decimals"),
        ('event_meter = { type = "t", aggregation = "count", groups = ["x"] }', "event_meter.groups"),
        ('event_meter = { type = "t", aggregation = "count", group_by = ["x", "x"] }', "group_by: .*twice"),
        ('event_meter = { type = "t", aggregation = "count", group_by = ["a","b","c","d","e","f"] }', "group_by"),
    ],
)
def test_a_wrong_meter_is_refused_naming_field_and_fix(tmp_path: Path, feed: str, message: str):
    good = (PACKAGE / "src/quill_contracts/catalogs/posthog_2025.toml").read_text("utf-8")
    path = tmp_path / "catalog.toml"
    path.write_text(good.replace(COUNTER, feed, 1), "utf-8")
    with pytest.raises(InvalidCatalogFile, match=rf"products\.0.*{message}"):
        load_catalog(path)


def test_counts_from_without_a_meter_is_refused(tmp_path: Path):
    good = (PACKAGE / "src/quill_contracts/catalogs/posthog_2025.toml").read_text("utf-8")
    path = tmp_path / "catalog.toml"
    path.write_text(
        good.replace(COUNTER, "counts_from = 2026-10-10T00:00:00Z", 1).replace('usage_key = "events"', "", 1)
    )
    with pytest.raises(InvalidCatalogFile, match=r"counts_from: .*give usage_key"):
        load_catalog(path)


def test_a_meter_is_fed_by_a_counter_or_by_events_from_an_instant_on(tmp_path: Path):
    good = (PACKAGE / "src/quill_contracts/catalogs/posthog_2025.toml").read_text("utf-8")
    feed = (
        'event_meter = { type = "t", aggregation = "sum", value = "x", decimals = 2, group_by = ["region"] }\n'
        "counts_from = 2026-10-10T00:00:00Z"
    )
    path = tmp_path / "catalog.toml"
    path.write_text(good.replace(COUNTER, feed, 1), "utf-8")
    product = load_catalog(path).product("product_analytics")
    assert product is not None
    assert product.event_meter is not None
    assert (product.counter, product.event_meter.decimals, product.event_meter.group_by) == (None, 2, ["region"])
    assert product.counts_from == datetime(2026, 10, 10, tzinfo=UTC)


def test_a_missing_catalog_file_is_named(tmp_path: Path):
    with pytest.raises(InvalidCatalogFile, match="no such file"):
        load_catalog(tmp_path / "none.toml")
