"""Rules of safe code that hold for every module, and that no secret is ever shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.settings import ENV_PREFIX, SECRETS, Settings

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "streams").rglob("*.py"), *(ROOT / "models").rglob("*.py")])

#: Modules that run code found in data, or that read such files.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
#: Calls that run code found in data, or that start a shell.
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "os.system", "os.popen", "numpy.load", "np.load", "yaml.load"}


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` of a name or attribute, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def relative(path: Path) -> str:
    """Return the path as a test id."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_code_out_of_data(path: Path) -> None:
    """No module unpickles, evaluates, opens a shell or lets a model folder bring code of its own."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES
        elif isinstance(node, ast.Call):
            assert dotted(node.func) not in FORBIDDEN_CALLS
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else "not a constant"
                assert keyword.arg not in {"trust_remote_code", "shell", "allow_pickle"} or value is False


def constants(pairs: list[tuple[str | None, ast.expr]]) -> dict[str | None, object]:
    """Return the pairs whose value is written out."""
    return {name: value.value for name, value in pairs if isinstance(value, ast.Constant)}


def spread_dicts(tree: ast.Module) -> dict[str, dict[str | None, object]]:
    """Return the written-out dicts of a module by the name they are assigned to, for `**name` in a call."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            pairs: list[tuple[str | None, ast.expr]] = [
                (str(key.value), value)
                for key, value in zip(node.value.keys, node.value.values, strict=True)
                if isinstance(key, ast.Constant)
            ]
            found[dotted(target)] = constants(pairs)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_models_come_from_local_folders(path: Path) -> None:
    """Every `from_pretrained` says that nothing may be downloaded and no code of the folder may run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    dicts = spread_dicts(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func).endswith(".from_pretrained"):
            said = constants([(keyword.arg, keyword.value) for keyword in node.keywords])
            for keyword in node.keywords:
                if keyword.arg is None:
                    said |= dicts[dotted(keyword.value)]

            assert said.get("local_files_only") is True
            assert said.get("trust_remote_code") is False


def test_environment_is_read_in_one_place() -> None:
    """Only the settings read `FRESHET_` variables; a module that did so itself would escape checks and masks."""
    readers = {
        relative(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and dotted(node.func) in {"os.getenv", "os.environ.get"}
        and any(
            isinstance(part, ast.Constant) and str(part.value).startswith(ENV_PREFIX)
            for argument in node.args
            for part in ast.walk(argument)
        )
    }

    assert readers <= {"streams/settings.py"}


def test_every_secret_is_named_as_one() -> None:
    """A setting that sounds like a secret is one: masked, and readable from a file."""
    sounding = {
        name
        for name in Settings.model_fields
        if name.endswith(("password", "secret", "token", "salt", "credentials", "api_key"))
    }
    masked = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}

    assert sounding == set(SECRETS)
    assert masked == set(SECRETS)


@pytest.mark.parametrize("form", [[], ["--json"], ["--markdown"]], ids=["table", "json", "markdown"])
def test_settings_command_masks_secrets(form: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`freshet settings` shows that a secret is set, and never what it is."""
    for name in SECRETS:
        monkeypatch.setenv(f"{ENV_PREFIX}{name.upper()}", "hunter2")

    result = CliRunner().invoke(app, ["settings", *form])

    assert result.exit_code == 0
    assert "hunter2" not in result.output
    if form == ["--json"]:
        values = {row["name"]: row["value"] for row in json.loads(result.output)}
        assert {values[f"{ENV_PREFIX}{name.upper()}"] for name in SECRETS} == {"********"}
