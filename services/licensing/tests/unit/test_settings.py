import pytest
from pydantic import ValidationError
from quill_licensing.settings import LicensingSettings

GOOD = {
    "database_url": "postgresql://u@127.0.0.1/d",
    "kafka_bootstrap_servers": "127.0.0.1:1",
    "quill_sealing_keys": "k:x",
    "smtp_host": "127.0.0.1",
    "smtp_from": "billing@quill.example",
}


def test_what_the_stack_sets_is_enough():
    settings = LicensingSettings(**GOOD)
    assert settings.smtp_port == 25
    assert settings.signup_trusted_hops == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"smtp_from": "nobody"}, "smtp_from"),
        ({"smtp_port": 0}, "smtp_port"),
        ({"smtp_security": "none"}, "smtp_security"),
        ({"smtp_user": "u"}, "together"),
        ({"smtp_password": "p"}, "together"),
        ({"smtp_user": "u", "smtp_password": "p"}, "in the clear"),
        ({"smtp_timeout_seconds": 31}, "smtp_timeout_seconds"),
    ],
)
def test_a_setting_that_is_wrong_stops_the_start_with_its_name(changed, said):
    with pytest.raises(ValidationError, match=said):
        LicensingSettings(**{**GOOD, **changed})


def test_a_password_is_sent_over_an_encrypted_connection():
    LicensingSettings(**GOOD, smtp_user="u", smtp_password="p", smtp_security="starttls")
