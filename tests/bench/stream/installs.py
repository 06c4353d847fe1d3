"""What peers need and Freshet does not, kept in the cache: an environment of Python packages, Kafka Streams' jars."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from streams.errors import DependencyError

_HERE = Path(__file__).parent
REQUIREMENTS = _HERE / "peers" / "requirements.txt"
POM = _HERE / "pom.xml"
_TIMEOUT_S = 600.0


def peers_python(cache_dir: Path, requirements: Path = REQUIREMENTS) -> Path:
    """
    Return the Python of an environment of peers; the first call makes it with uv.

    Raises
    ------
    DependencyError
        When uv is missing or a package cannot be installed.

    """
    wanted = requirements.read_bytes() + sys.version.encode()
    target = cache_dir / f"bench-venv-{hashlib.sha256(wanted).hexdigest()[:12]}"
    python = target / "bin" / "python"
    if (target / "complete").exists():
        return python
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise DependencyError("the peers' environment is made with uv; install it (deploy/local/setup does)")
    _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(target)], "the peers' environment")
    _run([uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)], "the peers' packages")
    (target / "complete").touch()
    return python


def streams_jars(cache_dir: Path) -> Path:
    """
    Return the folder with Kafka Streams' jars; the first call has Maven fetch them.

    Raises
    ------
    DependencyError
        When Maven or a Java compiler is missing, or Maven fails.

    """
    if shutil.which("javac") is None:
        raise DependencyError("the Kafka Streams peer needs a JDK 17 or later; install openjdk-17-jdk-headless")
    target = cache_dir / f"kafka-streams-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if target.exists():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise DependencyError("the Kafka Streams peer needs Maven to fetch its jars; install it (package maven)")
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".streams-") as scratch:
        jars = Path(scratch) / "jars"
        _run(
            [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"],
            "Kafka Streams' jars",
        )
        jars.rename(target)
    return target


def versions(cache_dir: Path) -> dict[str, str]:
    """Return the versions of the peers that are installed, by name."""
    frozen = subprocess.run(
        [peers_python(cache_dir), "-c", _VERSIONS], check=True, capture_output=True, text=True, timeout=60
    )
    found = dict(line.split(" ", 1) for line in frozen.stdout.splitlines())
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    for dependency in ET.parse(POM).getroot().iterfind("m:dependencies/m:dependency", space):  # noqa: S314 -- our own
        found[dependency.findtext("m:artifactId", "", space)] = dependency.findtext("m:version", "", space)
    return found


_VERSIONS = """
from importlib.metadata import version
for name in ("quixstreams", "bytewax", "confluent-kafka"):
    print(name, version(name))
"""


def _run(command: list[str], what: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        lines = [line for line in f"{error.stdout}\n{error.stderr}".splitlines() if line.strip()]
        raise DependencyError(f"{what} cannot be installed: {' | '.join(lines[:3])}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DependencyError(f"{what} cannot be installed: {error}") from error
