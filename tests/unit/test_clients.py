"""Client options: one settings group, spelt for each Kafka library."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from streams.kafka.clients import kafka_python_config, librdkafka_config, ssl_context
from streams.settings import Settings


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate and its key, made for this run: no key is ever committed."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
            "-keyout", str(key), "-out", str(cert),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def secure(certificate: tuple[Path, Path]) -> Settings:
    """Settings with everything that can be said about a secure Kafka."""
    cert, key = certificate
    return Settings.from_env(
        kafka_bootstrap="a:9093,b:9093",
        kafka_security_protocol="SASL_SSL",
        kafka_username="freshet",
        kafka_password="s3cret",  # noqa: S106  # not a real one
        kafka_ssl_ca_file=cert,
        kafka_ssl_cert_file=cert,
        kafka_ssl_key_file=key,
    )


def test_plaintext_names_only_the_brokers() -> None:
    """Without TLS and SASL no option of theirs is given."""
    settings = Settings(kafka_bootstrap="a:1,b:2")

    assert {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "PLAINTEXT",
        "log_level": 4,
    } == librdkafka_config(settings)
    assert kafka_python_config(settings) == {"bootstrap_servers": ["a:1", "b:2"], "security_protocol": "PLAINTEXT"}
    assert ssl_context(settings) is None


def test_extra_options_win() -> None:
    """A caller's option stands over the common one; librdkafka's are written with underscores for dots."""
    settings = Settings()

    assert librdkafka_config(settings, bootstrap_servers="c:3")["bootstrap.servers"] == "c:3"
    assert kafka_python_config(settings, bootstrap_servers="c:3")["bootstrap_servers"] == "c:3"


def test_librdkafka_takes_the_secure_options(certificate: tuple[Path, Path]) -> None:
    """The C library itself accepts every option of TLS and SCRAM under the names given, for both kinds of client."""
    config = librdkafka_config(secure(certificate))

    assert config["sasl.mechanism"] == "SCRAM-SHA-512"
    assert config["sasl.password"] == "s3cret"
    assert config["ssl.ca.location"] == str(certificate[0])
    Producer(config)
    Consumer({**config, "group.id": "g"}).close()


def test_pure_python_clients_verify_the_broker(certificate: tuple[Path, Path]) -> None:
    """The TLS context demands a certificate that the named authority signed and that names the host."""
    config = kafka_python_config(secure(certificate))
    context = config["ssl_context"]

    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname is True
    assert len(context.get_ca_certs()) == 1
    assert config["sasl_mechanism"] == "SCRAM-SHA-512"
    assert config["sasl_plain_username"] == "freshet"
    assert config["sasl_plain_password"] == "s3cret"  # noqa: S105  # not a real one


def test_sasl_without_tls_has_no_context() -> None:
    """SASL_PLAINTEXT authenticates without TLS."""
    settings = Settings.from_env(
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_username="freshet",
        kafka_password="s3cret",  # noqa: S106  # not a real one
    )

    assert "ssl_context" not in kafka_python_config(settings)
    assert librdkafka_config(settings)["sasl.username"] == "freshet"
