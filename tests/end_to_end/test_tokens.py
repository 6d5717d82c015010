"""Whoever is not who a good token says gets a JSON refusal without a customer in it (L18; wire contract 1.1, 1.2)."""

import base64
import hashlib
import hmac
import json
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

AUDIENCE = "posthog:license-key"


@pytest.fixture(scope="module")
def victim(billing, cloud):
    """The organization that everybody asks about, with something to find."""
    return billing.new_organization(cloud)


@pytest.fixture(scope="module")
def revoked(billing):
    license_ = billing.new_license()
    organization = billing.new_organization(license_)
    path = f"/v1/licenses/{license_.license_id}/revoke"
    billing.as_operator("POST", path, json={"reason": "end of contract"})
    billing.eventually(lambda: not billing.can_ask(organization, "/api/billing"))
    billing.eventually(lambda: not billing.can_ask(organization, f"/v1/usage/{organization.organization_id}"))
    return organization


def claims_of(billing, organization, **changed):
    usual = {
        "exp": int((billing.clock.now() + timedelta(minutes=15)).timestamp()),
        "aud": AUDIENCE,
        "id": organization.license.license_id,
        "organization_id": organization.organization_id,
        "organization_name": "Mole",
    }
    return {name: value for name, value in {**usual, **changed}.items() if value is not ...}


def signed(billing, organization, *, secret=None, algorithm="HS256", headers=None, **changed):
    key = organization.license.secret if secret is None else secret
    return jwt.encode(claims_of(billing, organization, **changed), key, algorithm=algorithm, headers=headers)


def unsigned(billing, organization):
    parts = ({"alg": "none", "typ": "JWT"}, claims_of(billing, organization))
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return f"{'.'.join(encoded)}."


def relabelled(billing, organization, algorithm, digest=hashlib.sha256):
    """Signed with the true secret, with an algorithm's name on it that may be another than the one used."""
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).rstrip(b"=").decode()
    payload = signed(billing, organization).split(".")[1]
    mac = hmac.digest(organization.license.secret.encode(), f"{header}.{payload}".encode(), digest)
    return f"{header}.{payload}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def rs256(billing, organization):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return signed(billing, organization, secret=key, algorithm="RS256")


def ago(billing, **span):
    return int((billing.clock.now() - timedelta(**span)).timestamp())


REFUSED_TOKENS = {
    "none at all": lambda _b, _v, _r: None,
    "not a token": lambda _b, _v, _r: "a.b.c",
    "a static token nobody was given": lambda _b, _v, _r: "quill_op_guess",
    "the license key itself": lambda _b, v, _r: v.license.key,
    "forged: another secret": lambda b, v, _r: signed(b, v, secret="0" * 43),
    "forged: empty-looking secret": lambda b, v, _r: signed(b, v, secret="\x00" * 32),
    "forged: the license id as secret": lambda b, v, _r: signed(b, v, secret=v.license.license_id.ljust(32, "=")),
    "forged: payload exchanged": lambda b, v, r: ".".join(
        [*signed(b, r).split(".")[:1], signed(b, v).split(".")[1], signed(b, r).split(".")[2]]
    ),
    "unknown license": lambda b, v, _r: signed(b, v, id="no-such-license"),
    "license id of a wrong type": lambda b, v, _r: signed(b, v, id=["a"]),
    "expired beyond the leeway": lambda b, v, _r: signed(b, v, exp=ago(b, seconds=121)),
    "expired a year ago": lambda b, v, _r: signed(b, v, exp=ago(b, days=365)),
    "lives for a day": lambda b, v, _r: signed(b, v, exp=ago(b, days=-1)),
    "lives for ever": lambda b, v, _r: signed(b, v, exp=...),
    "another audience": lambda b, v, _r: signed(b, v, aud="posthog:something-else"),
    "no audience": lambda b, v, _r: signed(b, v, aud=...),
    "no license id": lambda b, v, _r: signed(b, v, id=...),
    "no organization": lambda b, v, _r: signed(b, v, organization_id=...),
    "organization of a wrong type": lambda b, v, _r: signed(b, v, organization_id=[v.organization_id]),
    "alg none": lambda b, v, _r: unsigned(b, v),
    "alg RS256": lambda b, v, _r: rs256(b, v),
    "alg RS256 on an HS256 signature": lambda b, v, _r: relabelled(b, v, "RS256"),
    "alg HS512": lambda b, v, _r: relabelled(b, v, "HS512", hashlib.sha512),
    "alg HS384": lambda b, v, _r: relabelled(b, v, "HS384", hashlib.sha384),
    "alg hs256 in small letters": lambda b, v, _r: relabelled(b, v, "hs256"),
    "foreign organization": lambda b, v, r: signed(b, v, id=b.other.license.license_id, secret=b.other.license.secret),
    "revoked license": lambda b, _v, r: signed(b, r),
    "revoked license, foreign organization": lambda b, v, r: signed(b, v, id=r.license.license_id, secret=r.license.secret),
}  # fmt: skip
CALLS = [("GET", "/api/billing"), ("PATCH", "/api/billing"), ("POST", "/api/usage")]


@pytest.fixture(scope="module")
def stranger(billing):
    """A good license of somebody else."""
    billing.other = billing.new_organization(billing.new_license())
    yield billing.other
    del billing.other


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("route", CALLS, ids=" ".join)
@pytest.mark.parametrize("name", REFUSED_TOKENS)
def test_a_bad_token_is_refused_in_json_without_a_customer(billing, victim, revoked, route, name):
    method, path = route
    token = REFUSED_TOKENS[name](billing, victim, revoked)
    answer = call(billing, method, path, token, victim)
    assert answer.status_code in (401, 403)
    document = answer.json()
    assert set(document) == {"type", "code", "detail", "attr"}
    assert "customer" not in document
    assert victim.license.secret not in answer.text
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["", "Basic ", "Token ", "Bearer  Bearer "])
def test_another_scheme_is_refused(billing, victim, scheme):
    answer = billing.ask("GET", "/api/billing", headers={"Authorization": scheme + billing.token(victim)})
    assert answer.status_code == 401
    assert "customer" not in answer.json()


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_the_good_token_beside_them_is_taken(billing, victim, method, path):
    answer = call(billing, method, path, billing.token(victim), victim)
    assert answer.status_code == 200
    assert answer.json()["customer"]["customer_id"]


def test_a_refused_change_changes_nothing(billing, victim, revoked):
    billing.ask(
        "PATCH", "/api/billing", signed(billing, victim, secret="z" * 40), json={"custom_limits_usd": {"events": 1}}
    )
    assert billing.as_license(victim, "GET", "/api/billing")["customer"]["custom_limits_usd"] == {}


def call(billing, method, path, token, organization):
    if path == "/api/usage":
        body = {"organization_id": organization.organization_id, "date": "2026-09-30", "event_count_in_period": 1}
        return billing.ask(method, path, token, json=body)
    return billing.ask(method, path, token, json={} if method == "PATCH" else None)
