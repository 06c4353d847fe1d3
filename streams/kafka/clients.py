"""
Connection options of every Kafka client, from the one settings group.

librdkafka (`confluent_kafka`), kafka-python and Faust spell the same options differently; nobody else in the
project spells them.
"""

from __future__ import annotations

import ssl
from typing import Any

from streams.settings import Settings


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context for pure-Python clients; None when the protocol has no TLS."""
    if "SSL" not in settings.kafka_security_protocol:
        return None
    context = ssl.create_default_context(cafile=settings.kafka_ssl_ca_file)
    if settings.kafka_ssl_cert_file and settings.kafka_ssl_key_file:
        context.load_cert_chain(
            settings.kafka_ssl_cert_file,
            settings.kafka_ssl_key_file,
            settings.kafka_ssl_key_password.get_secret_value() or None,
        )
    return context


def librdkafka_config(settings: Settings, **extra: Any) -> dict[str, Any]:
    """
    Return options for `confluent_kafka` clients; `extra` wins, with `_` for `.` in names.

    >>> librdkafka_config(Settings(), group_id="g")["group.id"]
    'g'
    """
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security_protocol,
        # Syslog's "warning"; librdkafka writes these to stderr itself. Python's logging as its sink once made a
        # producer that was being fenced fail with an AttributeError of the logger.
        "log_level": 4,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        config |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password.get_secret_value(),
        }
    if settings.kafka_ssl_ca_file:
        config["ssl.ca.location"] = str(settings.kafka_ssl_ca_file)
    if settings.kafka_ssl_cert_file:
        config |= {
            "ssl.certificate.location": str(settings.kafka_ssl_cert_file),
            "ssl.key.location": str(settings.kafka_ssl_key_file),
        }
        if password := settings.kafka_ssl_key_password.get_secret_value():
            config["ssl.key.password"] = password
    return config | {name.replace("_", "."): value for name, value in extra.items()}


def kafka_python_config(settings: Settings, **extra: Any) -> dict[str, Any]:
    """
    Return options for kafka-python clients; `extra` wins.

    >>> kafka_python_config(Settings(kafka_bootstrap="a:1,b:2"))["bootstrap_servers"]
    ['a:1', 'b:2']
    """
    config: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap.split(","),
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        config |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    if context := ssl_context(settings):
        config["ssl_context"] = context
    return config | extra
