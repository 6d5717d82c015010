"""What operators do: subscriptions, trust, trials, limits, and reading who changed what."""

from typing import Any

import pytest
from quill_contracts.subscriptions import CustomerSnapshot
from quill_runtime.outbox import VALUE_BYTES_MAX


@pytest.fixture
async def registered(caller: Any) -> Any:
    await caller.http.get("/api/billing", headers=caller.signed())
    return caller


async def test_a_subscription_is_started_and_cancelled_once(registered: Any) -> None:
    path, operator = "/v1/customers/org-1/subscription", registered.operator
    schedule = (await registered.http.get("/v1/customers/org-1", headers=operator)).json()["schedule"]
    started = await registered.http.post(
        path, headers=operator, json={"products": ["surveys", "platform_enterprise"], "collection_mode": "quill-rates"}
    )
    snapshot = CustomerSnapshot.model_validate(started.json())
    assert started.status_code == 201
    assert (snapshot.collection_mode, snapshot.has_active_subscription) == ("quill-rates", True)
    assert started.json()["schedule"] == schedule
    assert [item.product_key for item in snapshot.items if item.subscribed] == ["surveys", "platform_enterprise"]
    assert [feature.key for feature in snapshot.features] == ["sso_enforcement", "product_analytics_data_retention"]
    assert (await registered.http.post(path, headers=operator, json={"products": ["surveys"]})).status_code == 409
    cancelled = await registered.http.delete(path + "/", headers=operator)
    assert (cancelled.status_code, cancelled.json()["has_active_subscription"]) == (200, False)
    assert (await registered.http.delete(path, headers=operator)).json()["code"] == "no_active_subscription"


@pytest.mark.parametrize(
    ("body", "attr"),
    [
        ({"products": []}, "products"),
        ({"products": ["teleporter"]}, "products"),
        ({"products": ["surveys"], "quantities": {"surveys": 2}}, "quantities__surveys"),
        (
            {"products": ["platform_enterprise"], "quantities": {"platform_enterprise": 2}},
            "quantities__platform_enterprise",
        ),
        ({"products": ["seats"], "quantities": {"seats": 0}}, "quantities__seats"),
        ({"products": ["seats"], "quantities": {"surveys": 1}}, None),
        ({"products": ["seats"], "collection_mode": "barter"}, "collection_mode"),
        ({"products": ["seats"], "price": 1}, "price"),
        ({}, "products"),
    ],
)
async def test_a_wrong_subscription_is_refused_by_field(
    registered: Any, body: dict[str, Any], attr: str | None
) -> None:
    answer = await registered.http.post("/v1/customers/org-1/subscription", headers=registered.operator, json=body)
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)


async def test_seats_change_inside_a_period_and_a_repeat_changes_nothing(registered: Any) -> None:
    """K5: the command, its event and the snapshot."""
    path, operator = "/v1/customers/org-1/subscription", registered.operator
    start = {"products": ["seats", "surveys"], "quantities": {"seats": 3}}
    first = (await registered.http.post(path, headers=operator, json=start)).json()
    changed = await registered.http.post(f"{path}/quantities", headers=operator, json={"quantities": {"seats": 30}})
    assert changed.status_code == 200, changed.text
    snapshot = CustomerSnapshot.model_validate(changed.json())
    seats = next(item for item in snapshot.items if item.product_key == "seats")
    assert (seats.quantity, seats.changes[-1].quantity, seats.subscribed) == (30, 30, True)
    assert snapshot.revision == first["revision"] + 1
    again = await registered.http.post(f"{path}/quantities", headers=operator, json={"quantities": {"seats": 30}})
    assert again.json()["revision"] == snapshot.revision
    history = (await registered.http.get("/v1/customers/org-1/history", headers=operator)).json()["results"]
    assert [(event["type"], event["before"], event["after"]) for event in history[2:]] == [
        ("QuantitiesChanged", {"seats": 3}, {"seats": 30})
    ]
    assert history[-1]["actor"].startswith("operator:")


@pytest.mark.parametrize(
    ("quantities", "status", "code", "attr"),
    [
        ({"seats": 0}, 400, None, "quantities__seats"),
        ({"seats": 2.5}, 400, None, "quantities__seats"),
        ({"seats": True}, 400, None, "quantities__seats"),
        ({"seats": 10**6 + 1}, 400, None, "quantities__seats"),
        ({}, 400, None, "quantities"),
        ({"teleporter": 2}, 400, "unknown_product", "quantities__teleporter"),
        ({"surveys": 2}, 400, "unknown_product", "quantities__surveys"),  # metered
        ({"seats": 4, "surveys": 2}, 400, "unknown_product", "quantities__surveys"),  # all or nothing
        ({"platform_enterprise": 2}, 400, "unknown_product", "quantities__platform_enterprise"),  # flat
        ({"platform_enterprise": 1}, 409, "not_subscribed", "quantities__platform_enterprise"),
    ],
)
async def test_wrong_quantities_are_refused_by_field_and_change_nothing(
    registered: Any, quantities: dict[str, Any], status: int, code: str | None, attr: str
) -> None:
    path, operator = "/v1/customers/org-1/subscription", registered.operator
    start = {"products": ["seats", "surveys"], "quantities": {"seats": 3}}
    started = (await registered.http.post(path, headers=operator, json=start)).json()
    refused = await registered.http.post(f"{path}/quantities", headers=operator, json={"quantities": quantities})
    assert (refused.status_code, refused.json()["attr"]) == (status, attr)
    assert code is None or refused.json()["code"] == code
    now = (await registered.http.get("/v1/customers/org-1", headers=operator)).json()
    assert now["revision"] == started["revision"]


async def test_seats_cannot_change_without_a_subscription_or_a_token(registered: Any) -> None:
    path, body = "/v1/customers/org-1/subscription/quantities", {"quantities": {"seats": 4}}
    refused = await registered.http.post(path, headers=registered.operator, json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_active_subscription")
    assert (await registered.http.post(path, json=body)).status_code == 401
    unknown = await registered.http.post(path.replace("org-1", "org-9"), headers=registered.operator, json=body)
    assert unknown.status_code == 404


async def test_seats_and_flat_prices_are_owed_from_the_subscription_on(registered: Any) -> None:
    """K5: the period began at midnight, the subscription at 9:30. 60.00 and 450.00 for 734.5 of 744 hours."""
    await registered.http.post(
        "/v1/customers/org-1/subscription",
        headers=registered.operator,
        json={"products": ["seats", "platform_enterprise"], "quantities": {"seats": 3}},
    )
    customer = (await registered.http.get("/api/billing", headers=registered.signed())).json()["customer"]
    amounts = {product["type"]: product["current_amount_usd"] for product in customer["products"]}
    assert (amounts["seats"], amounts["platform_enterprise"]) == ("59.23", "444.25")
    assert (customer["current_total_amount_usd"], customer["projected_total_amount_usd"]) == ("503.48", "503.48")
    assert customer["billing_plan"] == "platform_enterprise"


async def test_one_patch_changes_several_things_or_nothing(registered: Any) -> None:
    path, operator = "/v1/customers/org-1", registered.operator
    body = {
        "trust_scores": {"events": 7, "surveys": 15},
        "never_drop_data": True,
        "free_trial_until": "2026-05-01T00:00:00Z",
        "custom_limits_usd": {"recordings": 20},
    }
    changed = (await registered.http.patch(path, headers=operator, json=body)).json()
    assert changed["trust_scores"] == {"events": 7, "survey_responses": 15}
    assert (changed["never_drop_data"], changed["revision"]) == (True, 2)
    customer = (await registered.http.get("/api/billing", headers=registered.signed())).json()["customer"]
    assert customer["customer_trust_scores"] == {"product_analytics": 7, "surveys": 15}, "by product type here"
    assert customer["free_trial_until"] == "2026-05-01T00:00:00+00:00"
    mixed = {"never_drop_data": False, "custom_limits_usd": {"teleporter": 1}}
    assert (await registered.http.patch(path, headers=operator, json=mixed)).status_code == 400
    assert (await registered.http.get(path, headers=operator)).json()["never_drop_data"] is True
    ended = (await registered.http.patch(path, headers=operator, json={"free_trial_until": None})).json()
    assert ended["free_trial_until"] is None
    history = (await registered.http.get(f"{path}/history?limit=3", headers=operator)).json()
    assert [event["type"] for event in history["results"]] == [
        "CustomerRegistered",
        "TrustScoresChanged",
        "NeverDropDataChanged",
    ]
    assert {event["actor"] for event in history["results"][1:]} == {"operator:anna"}
    rest = (await registered.http.get(f"{path}/history?after={history['next']}", headers=operator)).json()
    assert [event["type"] for event in rest["results"]] == ["TrialSet", "BillingLimitsChanged", "TrialSet"]
    assert (rest["results"][-1]["before"], rest["results"][-1]["after"]) == ("2026-05-01T00:00:00Z", None)
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("body", "attr"),
    [
        ({"trust_scores": {"events": 5}}, "trust_scores__events"),
        ({"trust_scores": {"seats": 7}}, "trust_scores__seats"),
        ({"free_trial_until": "2026-05-01T00:00:00"}, "free_trial_until"),
        ({"never_drop_data": "yes"}, "never_drop_data"),
        ({"deactivated": True}, "deactivated"),
    ],
)
async def test_a_wrong_patch_is_refused_by_field(registered: Any, body: dict[str, Any], attr: str) -> None:
    answer = await registered.http.patch("/v1/customers/org-1", headers=registered.operator, json=body)
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)


async def test_customers_are_listed_in_pages(caller: Any) -> None:
    for organization_id in ("a", "b", "c"):
        await caller.http.get("/api/billing", headers=caller.signed(organization_id))
    first = (await caller.http.get("/v1/customers?limit=2", headers=caller.operator)).json()
    assert ([c["organization_id"] for c in first["results"]], first["next"]) == (["a", "b"], "b")
    second = (await caller.http.get("/v1/customers?limit=2&after=b", headers=caller.operator)).json()
    assert ([c["organization_id"] for c in second["results"]], second["next"]) == (["c"], None)
    assert (await caller.http.get("/v1/customers?limit=0", headers=caller.operator)).json()["attr"] == "limit"


@pytest.mark.parametrize("path", ["", "/history", "/projects", "/subscription"])
async def test_an_unknown_customer_is_not_found(caller: Any, path: str) -> None:
    method = {"/projects": "PUT", "/subscription": "DELETE"}.get(path, "GET")
    body = {"json": []} if method == "PUT" else {}
    answer = await caller.http.request(method, f"/v1/customers/nobody{path}", headers=caller.operator, **body)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_projects_travel_in_the_snapshot_and_tokens_are_unique(registered: Any, memory_store: Any) -> None:
    path = "/v1/customers/org-1/projects"
    projects = [{"team_id": "2", "api_token": "phc_b"}, {"team_id": "1", "api_token": "phc_a"}]
    assert (await registered.http.put(path, headers=registered.operator, json=projects)).status_code == 200
    newest = CustomerSnapshot.from_bytes(memory_store.contents.published[-1].value)
    assert [project.team_id for project in newest.projects] == ["1", "2"]
    twice = [projects[0], {**projects[1], "api_token": "phc_b"}]
    assert (await registered.http.put(path, headers=registered.operator, json=twice)).json()[
        "code"
    ] == "repeated_api_token"
    missing = await registered.http.put(path, headers=registered.operator, json=[{"team_id": "1"}])
    assert missing.json()["attr"] == "0__api_token"


async def test_the_largest_list_of_projects_fits_one_message(registered: Any, memory_store: Any) -> None:
    projects = [{"team_id": f"{n:040d}", "api_token": f"phc_{n:060d}"} for n in range(3_000)]
    answer = await registered.http.put("/v1/customers/org-1/projects", headers=registered.operator, json=projects)
    assert answer.json()["project_count"] == 3_000
    assert len(memory_store.contents.published[-1].value) < VALUE_BYTES_MAX


async def test_the_catalog_in_force_is_shown(caller: Any) -> None:
    shown = (await caller.http.get("/v1/catalog", headers=caller.operator)).json()
    assert (shown["version"], len(shown["products"])) == (1, 11)
    surveys = (await caller.http.get("/v1/catalog/surveys", headers=caller.operator)).json()
    assert (surveys["usage_key"], surveys["revision"], surveys["earlier_revisions"]) == ("survey_responses", 1, [])
    assert (await caller.http.get("/v1/catalog/teleporter", headers=caller.operator)).status_code == 404


@pytest.mark.parametrize("field", ["team_id", "api_token"])
async def test_a_project_with_a_nul_is_refused_by_field(registered: Any, field: str) -> None:
    project = {"team_id": "1", "api_token": "phc_1", field: "a\x00b"}
    answer = await registered.http.put("/v1/customers/org-1/projects", headers=registered.operator, json=[project])
    assert (answer.status_code, answer.json()["attr"]) == (400, f"0__{field}")


async def test_a_version_beyond_any_history_is_refused(registered: Any) -> None:
    path = f"/v1/customers/org-1/history?after={10**20}"
    answer = await registered.http.get(path, headers=registered.operator)
    assert (answer.status_code, answer.json()["attr"]) == (400, "after")
