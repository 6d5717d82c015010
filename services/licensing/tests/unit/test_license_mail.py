from datetime import UTC, datetime

import pytest
from quill_licensing.domain.license import License
from quill_licensing.domain.license_key import LicenseKey
from quill_licensing.domain.license_mail import compose
from quill_licensing.gateways.smtp import SmtpMailer

KEY = LicenseKey("lic_0123456789abcdef", "s" * 43)
MAILER = SmtpMailer(
    host="127.0.0.1",
    port=25,
    sender="billing@quill.example",
    security="opportunistic",
    timeout_seconds=1,
    password="hunter2",
)


def a_license(**changed):
    fields = {
        "license_id": KEY.license_id,
        "type": "scale",
        "status": "active",
        "email": "ada@b.example",
        "organization_name": "Hedgehogs",
        "source": "home",
        "sealed_secret": "v1.k.x",
        "issued_at": datetime(2026, 10, 1, 12, tzinfo=UTC),
    }
    return License(**{**fields, **changed})


def test_the_mail_holds_the_whole_key_on_a_line_of_its_own_and_says_how_to_enter_it_by_hand():
    """V15, V16."""
    mail = compose(a_license(), KEY)
    assert f"\n    {KEY.text}\n" in mail.text
    assert "by hand" in mail.text
    assert "/organization/billing" in mail.text
    assert KEY.secret not in mail.subject


def test_a_mail_sent_twice_is_the_same_to_the_byte():
    """L15: around a crash the same Message-ID goes out, never a second mail that looks new."""
    first, second = (MAILER.message(compose(a_license(), KEY)).as_bytes() for _ in range(2))
    assert first == second
    assert b"Message-ID: <license-mail.lic_0123456789abcdef@quill.example>" in first


@pytest.mark.parametrize("name", ["Größe & Söhne 🦔", "a" * 200, '"quoted" <b@c>', "=?utf-8?q?x?="])
def test_any_organization_name_makes_a_mail_that_reads_back(name):
    message = MAILER.message(compose(a_license(organization_name=name), KEY))
    assert f'"{name}"' in message.get_content()
    assert message["To"] == "ada@b.example"


def test_neither_mail_nor_mailer_shows_a_secret_when_printed():
    assert KEY.secret not in repr(compose(a_license(), KEY))
    assert "hunter2" not in repr(MAILER)
