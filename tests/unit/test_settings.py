"""Settings: what is read from where, what is refused and with which words, and that secrets stay secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from streams.errors import ConfigurationError
from streams.settings import ENV_PREFIX, SECRETS, Settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of the machine that runs the tests."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


def test_defaults_are_usable() -> None:
    """A bare environment gives settings for one machine."""
    settings = Settings.from_env()

    assert settings.kafka_bootstrap == "127.0.0.1:9092"
    assert settings.group("interest") == "freshet-interest"
    assert settings.redis_prefix == "freshet:"


def test_every_option_has_a_meaning() -> None:
    """Each setting has a description that ends as a sentence, for the table in the README."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable `FRESHET_X` sets `x`; lists and weights are written with commas."""
    monkeypatch.setenv("FRESHET_PARTITIONS", "12")
    monkeypatch.setenv("FRESHET_SURFACES", "home, cart")
    monkeypatch.setenv("FRESHET_USER_DEVICES", "phone, smart tv,")
    monkeypatch.setenv("FRESHET_WEIGHTS", "clicks=2,views=0.25")

    settings = Settings.from_env()

    assert settings.partitions == 12
    assert settings.surfaces == ("home", "cart")
    assert settings.user_devices == ("phone", "smart tv")
    assert settings.weights == {"views": 0.25, "clicks": 2.0, "carts": 3.0, "purchases": 5.0, "dislikes": 5.0}


def test_overrides_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option of the command line beats the environment."""
    monkeypatch.setenv("FRESHET_PARTITIONS", "12")

    assert Settings.from_env(partitions=3).partitions == 3


def test_namespace_prefixes_everything() -> None:
    """Topics, groups and Redis keys of two namespaces never meet."""
    settings = Settings(namespace="shop")

    assert settings.topic_prefix == "shop."
    assert settings.group("encoder") == "shop.freshet-encoder"
    assert settings.redis_prefix == "shop:freshet:"


def test_settings_are_frozen() -> None:
    """Nothing changes a setting after start."""
    settings = Settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.partitions = 3  # type: ignore[misc]  # this is the mistake under test


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_come_from_files(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`FRESHET_X_FILE` names a file with the secret; its last line break does not count."""
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    monkeypatch.setenv(f"{ENV_PREFIX}{name.upper()}_FILE", str(path))

    assert getattr(Settings.from_env(), name).get_secret_value() == "s3cret"


@pytest.mark.parametrize("name", SECRETS)
def test_unreadable_secret_file_is_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A secret file that is not there is refused with the variable's name and the path."""
    monkeypatch.setenv(f"{ENV_PREFIX}{name.upper()}_FILE", str(tmp_path / "absent"))

    with pytest.raises(ConfigurationError, match=rf"^{ENV_PREFIX}{name.upper()}_FILE names .*absent.*No such file"):
        Settings.from_env()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FRESHET_NAMESPACE", "Shop!"),
        ("FRESHET_LOG_LEVEL", "loud"),
        ("FRESHET_LOG_FORMAT", "xml"),
        ("FRESHET_HEALTH_PORT", "70000"),
        ("FRESHET_KAFKA_BOOTSTRAP", ""),
        ("FRESHET_KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("FRESHET_KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("FRESHET_KAFKA_TIMEOUT_S", "0"),
        ("FRESHET_KAFKA_SESSION_TIMEOUT_S", "1"),
        ("FRESHET_PARTITIONS", "0"),
        ("FRESHET_PARTITIONS", "many"),
        ("FRESHET_REPLICATION", "9"),
        ("FRESHET_REDIS_URL", "http://cache:6379"),
        ("FRESHET_REDIS_URL", "redis://:hunter2@cache:6379/0"),
        ("FRESHET_REDIS_TIMEOUT_S", "60"),
        ("FRESHET_REDIS_TTL_S", "1"),
        ("FRESHET_MAX_EVENT_AGE_S", "-1"),
        ("FRESHET_MAX_EVENT_AHEAD_S", "-1"),
        ("FRESHET_LATENESS_S", "-1"),
        ("FRESHET_ACCEPT_ITEMS_FROM_EVENTS", "perhaps"),
        ("FRESHET_WEIGHTS", "clicks"),
        ("FRESHET_WEIGHTS", "impressions=1"),
        ("FRESHET_WEIGHTS", "clicks=-1"),
        ("FRESHET_WEIGHTS", "clicks=nan"),
        ("FRESHET_HALF_LIFE_SHORT_S", "0"),
        ("FRESHET_LIST_SIZE", "101"),
        ("FRESHET_SURFACES", ","),
        ("FRESHET_SURFACES", "home page"),
        ("FRESHET_USER_DEVICES", "phone,tv,phone"),
        ("FRESHET_USER_DEVICES", "x" * 41),
        ("FRESHET_USER_DEVICES", "a,b,c,d,e,f,g,h,i"),
        ("FRESHET_COMMIT_INTERVAL_S", "0"),
        ("FRESHET_MAX_POLL_RECORDS", "0"),
        ("FRESHET_MODEL_SHA256", "abc"),
        ("FRESHET_DEVICE", "tpu"),
        ("FRESHET_ENCODER_MAX_TOKENS", "1"),
    ],
)
def test_refusals_name_the_setting(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad value is refused in one sentence that begins with the variable's name and hides the value."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=f"^{name} is not usable: ") as caught:
        Settings.from_env()

    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "FRESHET_KAFKA_USERNAME and FRESHET_KAFKA_PASSWORD"),
        ({"kafka_ssl_cert_file": "client.pem"}, "FRESHET_KAFKA_SSL_CERT_FILE and FRESHET_KAFKA_SSL_KEY_FILE"),
        ({"commit_timeout_s": 30, "kafka_session_timeout_s": 30}, "FRESHET_COMMIT_TIMEOUT_S must be below"),
    ],
)
def test_contradictions_name_both_settings(values: dict[str, object], words: str) -> None:
    """Settings that do not fit each other are refused with the names of both."""
    with pytest.raises(ConfigurationError, match=words):
        Settings.from_env(**values)


def test_unknown_override_is_refused() -> None:
    """A setting that does not exist is an error, not a silent nothing."""
    with pytest.raises(ConfigurationError, match="FRESHET_PARTITION is not usable"):
        Settings.from_env(partition=3)


def test_secrets_are_masked() -> None:
    """Neither repr, str nor a dump of the settings shows a secret."""
    settings = Settings.from_env(**dict.fromkeys(SECRETS, "hunter2"))

    for text in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "hunter2" not in text
