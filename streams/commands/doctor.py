"""`freshet doctor`: whether all is there that Freshet needs, and as it must be."""

from __future__ import annotations

import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import orjson
import typer

from streams.commands.checks import Check, Status, check_kafka, check_redis, worst
from streams.commands.common import examples, guarded, out
from streams.commands.common import settings as read_settings
from streams.commands.encoder_check import NAMES, check_encoder
from streams.errors import FreshetError
from streams.kafka.deadline import Deadline
from streams.settings import Settings

#: Everything together.
_DEADLINE_S = 20.0
#: Loading a model twice and measuring it, with `--encoder`.
_ENCODER_S = 120.0
#: The device check ends this long before the deadline, so that its answer is still told.
_MARGIN_S = 1.0

#: Run in a process of its own: loading torch takes seconds, may be stopped, and may crash on a broken driver.
_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__,
    "gpu": torch.cuda.get_device_name(0) if cuda else None,
    "bf16": bool(cuda and torch.cuda.is_bf16_supported()),
    "cpu": torch.backends.cpu.get_cpu_capability(),
    "threads": torch.get_num_threads(),
}))
"""

_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "red"}


class Group(NamedTuple):
    """Checks that run after one another in one thread; `names` says which answers are expected."""

    names: tuple[str, ...]
    run: Callable[[Settings, Deadline], Iterator[Check]]


def check_settings(settings: Settings, _: Deadline) -> Iterator[Check]:
    """Tell what differs from the defaults, secrets masked."""
    from streams.commands.settings import options

    changed = [
        f"{option.name}={option.value}"
        for option in options(settings)
        # Folders stand as absolute paths, their defaults as written.
        if option.value not in (option.default, Path(option.default).expanduser().resolve().as_posix())
    ]
    told = ", ".join(changed) if changed else "all at their defaults"
    yield Check("settings", "ok", told)


def check_packages(settings: Settings, _: Deadline) -> Iterator[Check]:  # noqa: ARG001  # one signature for all groups
    """Check the versions the batched transport depends on."""
    from importlib.metadata import version

    from streams.kafka.transport import check_versions

    check_versions()
    names = ("faust-streaming", "aiokafka", "confluent-kafka", "kafka-python", "redis", "transformers")
    yield Check("packages", "ok", ", ".join(f"{name} {version(name)}" for name in names))


def check_model(settings: Settings, _: Deadline) -> Iterator[Check]:
    """Check the model folder and its hashes; nothing is downloaded."""
    from models.artifact import load_spec
    from models.errors import ModelError
    from streams.encoding.source import DEFAULT_HASHES, DEFAULT_MODEL, default_folder, model_folder, model_name

    try:
        if settings.model_path is not None:
            folder = model_folder(settings)
        elif not default_folder(settings).is_dir():
            yield Check(
                "model", "warn", f"{DEFAULT_MODEL} is not in {settings.cache_dir} yet; the encoder fetches it once"
            )
            return
        else:
            folder = load_spec(default_folder(settings), settings.model_sha256, DEFAULT_HASHES)
    except ModelError as error:
        yield Check("model", "fail", str(error))
        return
    yield Check(
        "model",
        "ok",
        f"{model_name(settings)}: {folder.architecture}, {folder.dim} dimensions, "
        f"weights {folder.weights_sha256[:12]}, hashes {'as published' if settings.model_path is None else 'checked'}",
    )


def check_device(settings: Settings, deadline: Deadline) -> Iterator[Check]:
    """Check that torch loads, and what it can compute on."""
    limit_s = max(1.0, deadline.remaining_s() - _MARGIN_S)
    try:
        done = subprocess.run(  # noqa: S603  # a fixed program
            [sys.executable, "-c", _TORCH], capture_output=True, timeout=limit_s, check=True
        )
    except subprocess.TimeoutExpired:
        yield Check("device", "warn", f"torch did not load within {limit_s:.0f} s; is this machine busy?")
        return
    except subprocess.CalledProcessError as error:
        last = (error.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        yield Check("device", "fail", f"torch does not load: {last}")
        return
    yield judge_device(settings, orjson.loads(done.stdout), _cpu_flags())


def judge_device(settings: Settings, torch: dict[str, object], flags: frozenset[str]) -> Check:
    """
    Judge what torch told.

    >>> told = {"version": "2.10", "gpu": None, "bf16": False, "cpu": "AVX2", "threads": 2}
    >>> judge_device(Settings(device="cuda"), told, frozenset()).status
    'fail'
    """
    if torch["gpu"] is not None and settings.device != "cpu":
        bf16 = "bf16" if torch["bf16"] else "no bf16"
        return Check("device", "ok", f"torch {torch['version']} on {torch['gpu']}, {bf16}")
    if settings.device.startswith("cuda"):
        return Check("device", "fail", f"FRESHET_DEVICE={settings.device}, and torch {torch['version']} finds no GPU")
    bf16 = next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), "no bf16 instructions")
    return Check(
        "device", "ok", f"torch {torch['version']} on the CPU: {torch['threads']} threads, {torch['cpu']}, {bf16}"
    )


def _cpu_flags() -> frozenset[str]:
    """Return what Linux says of the processor; elsewhere nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


GROUPS = (
    Group(("settings",), check_settings),
    Group(("packages",), check_packages),
    Group(("kafka", "topics", "partitions", "lag", "partitioner", "record times"), check_kafka),
    Group(("redis", "clock"), check_redis),
    Group(("model",), check_model),
    Group(("device",), check_device),
)


def examine(settings: Settings, deadline: Deadline, groups: Sequence[Group] = GROUPS) -> Iterator[list[Check]]:
    """
    Run all groups at once; yield each group's answers, in order, when they are there or the deadline has passed.

    The threads are daemons: one that hangs in a dead network neither delays the answer nor the exit.
    """
    limit_s = deadline.remaining_s()
    answers: list[queue.Queue[Check | None]] = []
    for group in groups:
        answers.append(queue.Queue())
        threading.Thread(target=_work, args=(group, settings, deadline, answers[-1]), daemon=True).start()
    for group, answer in zip(groups, answers, strict=True):
        checks: list[Check] = []
        try:
            while (check := answer.get(timeout=deadline.remaining_s())) is not None:
                checks.append(check)
            rest = Check("", "warn", "not checked")
        except queue.Empty:
            rest = Check("", "fail", f"no answer within {limit_s:.0f} s")
        told = {check.name for check in checks}
        yield checks + [rest._replace(name=name) for name in group.names if name not in told]


def _work(group: Group, settings: Settings, deadline: Deadline, answer: queue.Queue[Check | None]) -> None:
    names = iter(group.names)
    name = next(names)
    try:
        for check in group.run(settings, deadline):
            answer.put(check)
            name = next(names, check.name)
    except FreshetError as error:
        answer.put(Check(name, "fail", str(error)))
    except Exception as error:  # noqa: BLE001  # one broken check must not hide the others
        answer.put(Check(name, "fail", f"the check itself failed: {type(error).__name__}: {error}"))
    finally:
        answer.put(None)


def _examine_all(settings: Settings, *, encoder: bool) -> Iterator[list[Check]]:
    yield from examine(settings, Deadline(_DEADLINE_S))
    if encoder:  # after the others, which would be measured with it
        yield from examine(settings, Deadline(_ENCODER_S), (Group(NAMES, check_encoder),))


@guarded
def doctor(
    *,
    encoder: Annotated[
        bool, typer.Option("--encoder", help="Measure the encoder as well; loads the model and takes longer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: a list of name, status, message.")] = False,
) -> None:
    """
    Check Kafka, topics, partitioner, lag, Redis, clock, model, device, packages and settings; at most 20 seconds.

    With --encoder the precision with its figures, canary drift, share of the bare forward pass, padding and the
    limiting stage follow; at most two minutes more.

    Each answer is ok, warn or fail with a sentence. The exit code is 1 when one is fail.
    """
    from rich.text import Text

    from streams.commands.lookup import printable

    settings = read_settings()
    # What goes wrong is told in a sentence below; the client's own log lines would stand between them.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    checks: list[Check] = []
    for answers in _examine_all(settings, encoder=encoder):
        checks += answers
        if not as_json:
            for check in answers:
                out.print(
                    Text.assemble(
                        (f"{check.status:<4}  ", _STYLES[check.status]),
                        (f"{check.name:<12}  ", "bold"),
                        printable(check.message),
                    )
                )
    if as_json:
        typer.echo(orjson.dumps([check._asdict() for check in checks], option=orjson.OPT_INDENT_2))
    if worst(checks) == "fail":
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add `doctor` to the command line."""
    app.command(
        rich_help_panel="Look",
        epilog=examples(
            "freshet doctor",
            "freshet doctor --encoder",
            "freshet doctor --json | jq -r '.[] | select(.status != \"ok\")'",
        ),
    )(doctor)
