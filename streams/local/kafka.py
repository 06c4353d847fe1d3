"""
One real Apache Kafka node (KRaft: broker and controller in one process) on this machine, from Maven's jars.

For `freshet up`, the demo and the tests. It listens on 127.0.0.1 only, keeps its data in one folder and comes back
with it after a restart.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from streams.errors import DependencyError
from streams.kafka.admin import wait_for_kafka
from streams.local.processes import Process, free_port, spawn, uninterrupted
from streams.local.security import Security, make_security
from streams.settings import Settings

#: The checkout this package was installed from; `deploy/local/pom.xml` stands in it.
PROJECT_ROOT = Path(__file__).resolve().parents[2]
POM = PROJECT_ROOT / "deploy" / "local" / "pom.xml"

#: 60 jars, 43 MB, and Maven's own plugins on a machine that never ran it.
_DOWNLOAD_TIMEOUT_S = 400.0
_FORMAT_TIMEOUT_S = 60.0
#: Another process may take a chosen port before the broker binds it; then others are tried.
_ATTEMPTS = 3

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
{listeners}
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes=2097152
# One node, so one replica; few partitions of the internal topics start and stop faster.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A first group member would wait three seconds for others.
group.initial.rebalance.delay.ms=0
# After kill -9 the node may register again only once its old session has ended; 9 s by default.
broker.session.timeout.ms=5000
broker.heartbeat.interval.ms=1000
num.network.threads=2
num.io.threads=4
# Hundreds of small partitions: small index files and a cleaner that fits the small heap.
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=33554432
"""

_PLAIN_LISTENERS = """\
listeners=CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENT://127.0.0.1:{port}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
"""

# The broker speaks to itself without a user; nobody is told that port.
_SECURE_LISTENERS = """\
listeners=CLIENT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal_port}
listener.security.protocol.map=CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INTERNAL
"""

_LOG4J = """\
status = error
appender.file.type = Console
appender.file.name = file
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
"""


class LocalKafka:
    """
    One Kafka node.

    Parameters
    ----------
    folder
        Holds its data, configuration and log; made when absent, kept by `stop`.
    cache_dir
        Where the jars are kept between runs and projects.
    port
        Preferred port; taken if free, else another. None takes any.
    secure
        Clients must come with TLS and SCRAM; `security` says how.

    """

    def __init__(self, folder: Path, cache_dir: Path, *, port: int | None = None, secure: bool = False) -> None:
        self.folder = folder
        self.cache_dir = cache_dir
        self.port = port or 0
        self.process: Process | None = None
        self.security = make_security(folder / "security") if secure else None
        self._controller_port = 0

    @property
    def bootstrap(self) -> str:
        """Address for clients, once started."""
        return f"127.0.0.1:{self.port}"

    def settings(self) -> dict[str, Any]:
        """Return the settings of a client, once started."""
        return {"kafka_bootstrap": self.bootstrap, **(self.security.settings() if self.security else {})}

    def start(self, timeout_s: float = 90.0) -> None:
        """
        Start the node and return once it answers; after `stop` it comes back on the same port with its data.

        Raises
        ------
        DependencyError
            When Java or Maven is missing, the jars cannot be fetched, or it does not answer in time.

        """
        jars = kafka_jars(self.cache_dir)
        deadline = time.monotonic() + timeout_s
        for attempt in range(1, _ATTEMPTS + 1):
            self._launch(jars)
            if self._answers(deadline):
                return
            assert self.process is not None
            lines = self.process.last_lines(40)
            self.stop()
            if "BindException" not in lines or attempt == _ATTEMPTS or time.monotonic() >= deadline:
                raise DependencyError(f"the local Kafka did not start within {timeout_s:g} s:\n{lines}")

    def stop(self, timeout_s: float = 20.0) -> None:
        """End the node with SIGTERM, with SIGKILL after `timeout_s`; its data stays."""
        if self.process is not None:
            self.process.stop(timeout_s)
            self.process = None

    def kill(self) -> None:
        """End the node as a power cut would."""
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
            self.process.wait(10.0)
            self.process = None

    def _launch(self, jars: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port(self.port or None)
        self._controller_port = free_port(self._controller_port or None)
        properties = self.folder / "server.properties"
        properties.write_text(self._properties(), encoding="utf-8")
        log4j = self.folder / "log4j2.properties"
        log4j.write_text(_LOG4J, encoding="utf-8")
        if not (self.folder / "data" / "meta.properties").exists():
            _format(jars, properties, log4j, self.security)
        java = [
            _java(), "-Xmx768m", "-Xms256m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{jars}/*", "kafka.Kafka", str(properties),
        ]  # fmt: skip
        with uninterrupted():
            self.process = spawn("kafka", java, self.folder / "kafka.log")

    def _properties(self) -> str:
        ports = {"port": self.port, "controller_port": self._controller_port}
        if self.security is None:
            listeners = _PLAIN_LISTENERS.format(**ports)
        else:
            listeners = _SECURE_LISTENERS.format(**ports, internal_port=free_port()) + self.security.properties()
        data = self.folder / "data"
        return _PROPERTIES.format(controller_port=self._controller_port, data=data, listeners=listeners.strip())

    def _answers(self, deadline: float) -> bool:
        """Ask until this very node answers, dies or the deadline passes."""
        probe = Settings(**self.settings(), kafka_timeout_s=2.0)
        ours = _formatted_as(self.folder / "data")
        while time.monotonic() < deadline and self.process is not None and self.process.alive():
            try:
                # Another Kafka may listen there while ours is about to fail to bind.
                if wait_for_kafka(probe) == ours:
                    return True
            except DependencyError:
                continue
            time.sleep(0.1)
        return False


def kafka_jars(cache_dir: Path) -> Path:
    """
    Return the folder with Kafka's jars; the first call has Maven fetch them, later ones find them.

    Raises
    ------
    DependencyError
        When Maven is missing or fails, or `deploy/local/pom.xml` is not there.

    """
    version = kafka_version()
    target = cache_dir / f"kafka-{version}"
    if (target / f"kafka_2.13-{version}.jar").exists():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise DependencyError(
            "the local Kafka needs Maven to fetch its jars; install it (package maven), "
            "or set FRESHET_KAFKA_BOOTSTRAP to use a Kafka that runs already"
        )
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".kafka-") as scratch:
        jars = Path(scratch) / "jars"
        command = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        try:
            _run(command, _DOWNLOAD_TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise DependencyError(f"Maven could not fetch Kafka {version}: {_reason(error)}") from error
        try:
            jars.rename(target)
        except OSError:  # another process was faster, or the folder lacks the jar looked for above
            if not (target / f"kafka_2.13-{version}.jar").exists():
                raise DependencyError(f"{target} is incomplete; remove it and start again") from None
    return target


def kafka_version() -> str:
    """
    Return the version of the local Kafka, as `deploy/local/pom.xml` names it.

    Raises
    ------
    DependencyError
        When that file cannot be read or names none.

    """
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    try:
        root = ET.parse(POM).getroot()  # noqa: S314  # our own file
    except OSError as error:
        raise DependencyError(
            f"{POM} cannot be read ({error.strerror}); the local Kafka works from a checkout of Freshet, "
            "elsewhere set FRESHET_KAFKA_BOOTSTRAP"
        ) from error
    for dependency in root.iterfind("m:dependencies/m:dependency", space):
        if dependency.findtext("m:artifactId", "", space) == "kafka_2.13":
            return dependency.findtext("m:version", "", space)
    raise DependencyError(f"{POM} names no kafka_2.13")


def _format(jars: Path, properties: Path, log4j: Path, security: Security | None) -> None:
    command = [
        _java(), "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{jars}/*",
        "kafka.tools.StorageTool", "format", "--config", str(properties), "--cluster-id", _new_cluster_id(),
        "--ignore-formatted", *(("--add-scram", security.scram()) if security else ()),
    ]  # fmt: skip
    try:
        _run(command, _FORMAT_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise DependencyError(f"the local Kafka's storage cannot be formatted: {_reason(error)}") from error


def _new_cluster_id() -> str:
    """Return a random UUID as Kafka writes them: 16 bytes in URL-safe base64 without padding."""
    made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # A leading dash would read as an option.
    return _new_cluster_id() if made.startswith("-") else made


def _formatted_as(data: Path) -> str:
    """Return the cluster id in a formatted data folder."""
    found = re.search(r"^cluster\.id=(.+)$", (data / "meta.properties").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].strip() if found else ""


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    if java is None:
        raise DependencyError(
            "the local Kafka needs Java 17 or later; install it (package openjdk-17-jre-headless), "
            "or set FRESHET_KAFKA_BOOTSTRAP to use a Kafka that runs already"
        )
    return java


def _run(command: list[str], timeout_s: float) -> None:
    """Run a helper in this command's own process group: Ctrl-C ends it too."""
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)  # noqa: S603  # fixed command line


def _reason(error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no end within {error.timeout:g} s"
    lines = [line for line in f"{error.stdout}\n{error.stderr}".splitlines() if line.strip()]
    wrong = [line for line in lines if "ERROR" in line or "Exception" in line or "Error" in line]
    return " | ".join((wrong or lines)[:3]) or f"exit code {error.returncode}"
