"""What makes a local Kafka secure: a certificate of its own and one SCRAM user. For tests of TLS and SASL."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from streams.errors import DependencyError

_KEYTOOL_TIMEOUT_S = 60.0
_USER = "freshet"


@dataclass(frozen=True, slots=True)
class Security:
    """
    Keys and passwords of one local Kafka, made anew for each data folder.

    Attributes
    ----------
    keystore
        PKCS 12 file with the broker's key and certificate.
    authority
        PEM file that clients trust.
    password
        Of the keystore and of the user.

    """

    keystore: Path
    authority: Path
    password: str

    def settings(self) -> dict[str, Any]:
        """Return the settings of a client."""
        return {
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "SCRAM-SHA-512",
            "kafka_username": _USER,
            "kafka_password": SecretStr(self.password),
            "kafka_ssl_ca_file": self.authority,
        }

    def scram(self) -> str:
        """Return the user as `StorageTool format --add-scram` takes it."""
        return f"SCRAM-SHA-512=[name={_USER},password={self.password}]"

    def properties(self) -> str:
        """Return the broker's settings of the listener CLIENT."""
        return (
            "sasl.enabled.mechanisms=SCRAM-SHA-512\n"
            "listener.name.client.scram-sha-512.sasl.jaas.config="
            "org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
            f"ssl.keystore.type=PKCS12\nssl.keystore.location={self.keystore}\nssl.keystore.password={self.password}\n"
        )


def make_security(folder: Path) -> Security:
    """
    Return the keys of a folder, made with `keytool` the first time: one certificate for 127.0.0.1 and localhost.

    Raises
    ------
    DependencyError
        When `keytool` is missing or fails.

    """
    folder.mkdir(parents=True, exist_ok=True)
    keystore, authority, secret = folder / "broker.p12", folder / "broker.pem", folder / "password"
    if not authority.exists():
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(16))
        keystore.unlink(missing_ok=True)
        store = ["-keystore", str(keystore), "-storetype", "PKCS12", "-storepass:file", str(secret), "-alias", "broker"]
        _keytool(
            "-genkeypair", *store, "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "3650",
            "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1,dns:localhost", "-ext", "bc:critical=ca:true",
        )  # fmt: skip
        _keytool("-exportcert", "-rfc", *store, "-file", str(authority))
    return Security(keystore, authority, secret.read_text(encoding="utf-8"))


def _keytool(*arguments: str) -> None:
    keytool = shutil.which("keytool")
    if keytool is None:
        raise DependencyError("a secure local Kafka needs keytool, which comes with Java; it is not on PATH")
    try:
        subprocess.run([keytool, *arguments], check=True, capture_output=True, text=True, timeout=_KEYTOOL_TIMEOUT_S)  # noqa: S603  # fixed command line
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise DependencyError(f"keytool failed: {str(error.stdout or error).strip()}") from error
