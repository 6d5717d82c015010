"""Every command in every state, and what replaying the facts gives."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_licensing.domain.license import (
    Activate,
    AlreadyIssued,
    BoundToAnotherOrganization,
    Issue,
    LicenseActivated,
    LicenseIssued,
    LicenseRevoked,
    NoSuchLicense,
    Revoke,
    changes_what_is_published,
    decide,
    evolve,
    replay,
)

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=3)
ISSUED = LicenseIssued(
    "lic_0123456789abcdef", "scale", "a@b.example", "Hedgehogs", "home", "v1.k.x", "signup:a@b.example", NOW
)
ISSUE = Issue("lic_0123456789abcdef", "scale", "a@b.example", "Hedgehogs", "home", "v1.k.x")
ACTIVE = evolve(None, ISSUED)
BOUND = evolve(ACTIVE, LicenseActivated("org-1", "subscriptions", NOW))
REVOKED = evolve(BOUND, LicenseRevoked("stolen", "operator:kim", NOW))
CLOUD = replace(ACTIVE, type="cloud")

DECISIONS = [
    # state before, command, facts (or the refusal)
    (None, ISSUE, [replace(ISSUED, actor="x", at=LATER)]),
    (ACTIVE, ISSUE, AlreadyIssued),
    (REVOKED, ISSUE, AlreadyIssued),
    (None, Activate("org-1"), NoSuchLicense),
    (ACTIVE, Activate("org-1"), [LicenseActivated("org-1", "x", LATER)]),
    (BOUND, Activate("org-1"), []),
    (BOUND, Activate("org-2"), BoundToAnotherOrganization),
    (REVOKED, Activate("org-1"), []),
    (REVOKED, Activate("org-2"), BoundToAnotherOrganization),
    (CLOUD, Activate("org-1"), []),
    (CLOUD, Activate("org-2"), []),
    (None, Revoke("stolen"), NoSuchLicense),
    (ACTIVE, Revoke("stolen"), [LicenseRevoked("stolen", "x", LATER)]),
    (BOUND, Revoke("stolen"), [LicenseRevoked("stolen", "x", LATER)]),
    (REVOKED, Revoke("stolen"), []),
    (REVOKED, Revoke("another reason"), []),
]


@pytest.mark.parametrize(("before", "command", "expected"), DECISIONS)
def test_each_command_leads_to_these_facts_or_is_refused(before, command, expected):
    if isinstance(expected, type):
        with pytest.raises(expected):
            decide(before, command, actor="x", now=LATER)
    else:
        assert list(decide(before, command, actor="x", now=LATER)) == expected


def test_the_facts_in_order_give_the_license_with_a_revision_per_fact():
    license_ = replay([ISSUED, LicenseActivated("org-1", "subscriptions", NOW), LicenseRevoked("stolen", "kim", LATER)])
    assert license_ is not None
    assert (license_.revision, license_.status, license_.organization_id) == (3, "revoked", "org-1")
    assert (license_.revoked_at, license_.revocation_reason, license_.issued_at) == (LATER, "stolen", NOW)


def test_a_stream_that_does_not_begin_by_being_issued_is_refused():
    with pytest.raises(NoSuchLicense):
        replay([LicenseRevoked("stolen", "kim", NOW)])


def test_verifiers_hear_of_issue_and_revocation_but_not_of_who_uses_a_license():
    assert changes_what_is_published([ISSUED])
    assert changes_what_is_published([LicenseRevoked("stolen", "kim", NOW)])
    assert not changes_what_is_published([LicenseActivated("org-1", "subscriptions", NOW)])


commands = st.one_of(
    st.builds(Activate, st.sampled_from(["org-1", "org-2", "org-3"])), st.builds(Revoke, st.sampled_from(["a", "b"]))
)


@given(st.sampled_from([ACTIVE, CLOUD]), st.lists(commands, max_size=12))
def test_a_license_belongs_to_one_organization_and_stays_revoked_whatever_is_asked(license_, asked):
    """L17, and revocation is for ever."""
    organizations = set()
    revocations = set()
    for command in asked:
        try:
            events = decide(license_, command, actor="x", now=NOW)
        except BoundToAnotherOrganization:
            continue
        license_ = replay(events, onto=license_)
        organizations |= {license_.organization_id} - {None}
        if license_.status == "revoked":
            revocations.add(license_.revocation_reason)
    assert len(organizations) <= (0 if license_.type == "cloud" else 1)
    assert len(revocations) <= 1
    assert (license_.status == "revoked") == any(isinstance(command, Revoke) for command in asked)
