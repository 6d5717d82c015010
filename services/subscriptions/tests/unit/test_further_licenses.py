"""Several instances on one account: attached and taken off by an operator with a reason, never two accounts' (O3, L17)."""

from typing import Any

import pytest
from quill_contracts import topics
from quill_contracts.subscriptions import CustomerSnapshot
from quill_runtime.auth import Key
from quill_subscriptions.store.memory import MemorySubscriptions

PATH = "/v1/customers/org-1/licenses"


@pytest.fixture
async def account(caller: Any) -> Any:
    """``org-1`` with the license ``self-1``; ``self-2`` is nobody's yet."""
    assert (await caller.http.get("/api/billing", headers=caller.signed("org-1", "self-1"))).status_code == 200
    return caller


async def attach(account: Any, license_id: str = "self-2", *, path: str = PATH) -> Any:
    body = {"license_id": license_id, "reason": "second data centre"}
    return await account.http.post(path, headers=account.operator, json=body)


def newest_snapshot(store: MemorySubscriptions) -> CustomerSnapshot:
    values = [message.value for message in store.contents.published if message.topic == topics.CUSTOMERS.name]
    assert values[-1] is not None
    return CustomerSnapshot.from_bytes(values[-1])


async def test_an_attached_license_is_published_and_remembered_with_who_and_why(
    account: Any, memory_store: MemorySubscriptions
) -> None:
    attached = await attach(account)
    assert (attached.status_code, attached.json()["further_license_ids"]) == (200, ["self-2"])
    assert newest_snapshot(memory_store).further_license_ids == ["self-2"]
    revision = attached.json()["revision"]
    assert (await attach(account)).json()["revision"] == revision, "a repeat changes nothing"
    detached = await account.http.post(f"{PATH}/self-2/detach", headers=account.operator, json={"reason": "moved out"})
    assert detached.json()["further_license_ids"] == []
    assert newest_snapshot(memory_store).further_license_ids == []
    history = (await account.http.get("/v1/customers/org-1/history", headers=account.operator)).json()["results"]
    assert [(event["before"], event["after"], event["reason"], event["actor"]) for event in history[-2:]] == [
        ([], ["self-2"], "second data centre", "operator:anna"),
        (["self-2"], [], "moved out", "operator:anna"),
    ]


async def test_a_license_that_is_somebodys_already_is_refused(account: Any, memory_store: MemorySubscriptions) -> None:
    await account.http.get("/api/billing", headers=account.signed("org-2", "self-2"))
    refused = await attach(account)
    assert (refused.status_code, refused.json()["code"]) == (409, "license_taken")
    own = await attach(account, "self-1")
    assert (own.status_code, own.json()["code"]) == (409, "license_taken")
    customer = (await account.http.get("/v1/customers/org-1", headers=account.operator)).json()
    assert customer["further_license_ids"] == [], "nothing of the refused change stays"
    assert newest_snapshot(memory_store).organization_id == "org-2"


async def test_a_license_is_never_attached_to_two_accounts(account: Any) -> None:
    await account.http.get("/api/billing", headers=account.signed("org-2"))
    assert (await attach(account)).status_code == 200
    second = await attach(account, path="/v1/customers/org-2/licenses")
    assert (second.status_code, second.json()["code"]) == (409, "license_taken")
    let_go = {"reason": "not theirs"}
    await account.http.post("/v1/customers/org-2/licenses/self-2/detach", headers=account.operator, json=let_go)
    still = (await account.http.get("/v1/customers/org-1", headers=account.operator)).json()
    assert still["further_license_ids"] == ["self-2"]
    again = await attach(account, path="/v1/customers/org-2/licenses")
    assert again.status_code == 409, "only its own account can let go of a license"


@pytest.mark.parametrize(
    ("license_id", "status", "code"),
    [
        ("nobody", 400, "unknown_license"),
        ("cloud-eu", 409, "license_of_region"),
        ("revoked", 409, "license_revoked"),
        ("not a name", 400, "invalid_input"),
    ],
)
async def test_only_an_issued_license_of_one_instance_can_be_attached(
    account: Any, license_id: str, status: int, code: str
) -> None:
    refused = await attach(account, license_id)
    assert (refused.status_code, refused.json()["code"], refused.json()["attr"]) == (status, code, "license_id")


async def test_a_further_license_reads_its_account_and_changes_nothing(account: Any) -> None:
    await attach(account)
    own = (await account.http.get("/api/billing", headers=account.signed("org-1", "self-1"))).json()
    for named in ("org-1", "org-of-its-own"):
        shown = await account.http.get("/api/billing", headers=account.signed(named, "self-2"))
        assert shown.json()["customer"]["customer_id"] == own["customer"]["customer_id"]
        changed = await account.http.patch(
            "/api/billing", headers=account.signed(named, "self-2"), json={"custom_limits_usd": {"events": 1}}
        )
        assert (changed.status_code, changed.json()["code"]) == (403, "permission_denied")
    listed = (await account.http.get("/v1/customers", headers=account.operator)).json()["results"]
    assert [customer["organization_id"] for customer in listed] == ["org-1"], "it registers nobody"


async def test_a_further_license_reaches_no_other_account(account: Any) -> None:
    account.keyring.put(
        Key("self-3", b"self-hosted-secret-that-is-long-enough-3", False, attributes={"type": "scale", "source": "s3"}),
        revision=1,
    )
    secret = b"self-hosted-secret-that-is-long-enough-3"
    await account.http.get(
        "/api/billing", headers={"Authorization": f"Bearer {account.token('org-3', 'self-3', secret=secret)}"}
    )
    await attach(account)
    denied = await account.http.get("/api/billing", headers=account.signed("org-3", "self-2"))
    assert (denied.status_code, denied.json()["code"]) == (403, "permission_denied")
    stranger = account.token("org-1", "self-3", secret=secret)
    denied = await account.http.get("/api/billing", headers={"Authorization": f"Bearer {stranger}"})
    assert denied.status_code == 403


@pytest.mark.parametrize("body", [{}, {"license_id": "self-2"}, {"license_id": "self-2", "reason": ""}])
async def test_a_reason_is_required(account: Any, body: dict[str, str]) -> None:
    assert (await account.http.post(PATH, headers=account.operator, json=body)).status_code == 400


async def test_only_operators_attach_licenses(account: Any) -> None:
    body = {"license_id": "self-2", "reason": "mine"}
    assert (await account.http.post(PATH, headers=account.signed("org-1", "self-1"), json=body)).status_code == 401
    assert (await account.http.post(PATH, json=body)).status_code == 401
