from datetime import UTC, datetime

import pytest
from pydantic import ValidationError
from quill_licensing.domain.license import LicenseActivated, LicenseIssued, LicenseRevoked, evolve
from quill_licensing.domain.license_story import LicenseStory
from quill_licensing.wire import (
    RevokeBody,
    SignupBody,
    UnknownFact,
    from_stored_event,
    to_stored_event,
    to_wire_published,
    to_wire_story,
)

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
ISSUED = LicenseIssued(
    "lic_0123456789abcdef", "scale", "a@b.example", "Hedgehogs", "home", "v1.k.sealed", "signup", NOW
)
FACTS = [ISSUED, LicenseActivated("org-1", "subscriptions", NOW), LicenseRevoked("stolen", "operator:kim", NOW)]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_a_fact_survives_being_stored(fact):
    name, content = to_stored_event(fact)
    assert from_stored_event(name, content, actor=fact.actor, at=fact.at) == fact


def test_a_fact_of_a_newer_version_is_named_when_it_cannot_be_read():
    with pytest.raises(UnknownFact, match="license_moved"):
        from_stored_event("license_moved", {"before": None, "after": {}}, actor="x", at=NOW)


def test_a_story_shows_who_changed_what_from_what_to_what_and_no_secret():
    """L20."""
    license_ = evolve(None, ISSUED)
    answer = to_wire_story(LicenseStory(license_, FACTS, [], None)).model_dump(mode="json")
    assert [(change["actor"], change["before"]) for change in answer["history"]] == [
        ("signup", None),
        ("subscriptions", {"organization_id": None}),
        ("operator:kim", {"status": "active"}),
    ]
    assert answer["history"][2]["after"] == {"status": "revoked", "reason": "stolen"}
    assert "sealed" not in str(answer)


def test_the_published_license_carries_the_sealed_secret_and_the_revision():
    published = to_wire_published(evolve(evolve(None, ISSUED), FACTS[2]))
    assert (published.sealed_secret, published.revision, published.status) == ("v1.k.sealed", 2, "revoked")


GOOD = {"email": "ada@b.example", "organization_name": "Hedgehogs"}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"email": "a b@c.example"}, "email"),
        ({"email": "a@b.example\r\nBcc: x@y.example"}, "email"),
        ({"email": "a@b.example,c@d.example"}, "email"),
        ({"email": '"a"@b.example'}, "email"),
        ({"email": "ä@b.example"}, "email"),
        ({"email": "a" * 250 + "@b.example"}, "email"),
        ({"email": None}, "email"),
        ({"organization_name": ""}, "organization_name"),
        ({"organization_name": "   "}, "organization_name"),
        ({"organization_name": "x" * 201}, "organization_name"),
        ({"organization_name": "a\nb"}, "organization_name"),
        ({"organization_name": "a\x00b"}, "organization_name"),
        ({"organization_name": 7}, "organization_name"),
        ({"type": "free"}, "type"),
        ({"source": "two words"}, "source"),
        ({"source": ""}, "source"),
        ({"source": "x" * 101}, "source"),
        ({"license_id": "mine"}, "license_id"),
    ],
)
def test_a_signup_that_is_wrong_names_its_field(changed, field):
    with pytest.raises(ValidationError) as refused:
        SignupBody.model_validate({**GOOD, **changed})
    assert refused.value.errors()[0]["loc"] == (field,)


def test_a_signup_needs_little():
    signup = SignupBody.model_validate({**GOOD, "organization_name": "  Hedgehogs  "}).to_signup()
    assert (signup.organization_name, signup.type, signup.source) == ("Hedgehogs", "scale", None)


@pytest.mark.parametrize("reason", ["", " ", "a\tb", "x" * 201, None])
def test_a_revocation_needs_a_reason_of_one_line(reason):
    with pytest.raises(ValidationError):
        RevokeBody.model_validate({"reason": reason})
