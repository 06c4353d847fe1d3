"""
GRU4Rec and SASRec of RecBole as systems to compare with, trained on the same events and ranked under the same mask.

RecBole 1.2.1 (Zhao et al., CIKM 2021) wants NumPy below 2, so it lives in an environment of its own, in the cache, made
by uv when it is first asked for (some GB, most of it torch). By hand, in a folder with the job that `fit` writes:

    uv venv recbole
    uv pip install --python recbole recbole==1.2.1 torch 'numpy<2' 'pandas<2.1' 'scipy<1.14' 'setuptools<80'
    recbole/bin/python -I .../streams/evaluation/recbole_training.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.interactions import Asking, Int32, Interactions
from streams.errors import ConfigurationError
from streams.local.environments import environment, run_tool

#: The models an evaluation compares with.
MODELS: Final = ("GRU4Rec", "SASRec")

#: RecBole with libraries of its time: it uses names that NumPy 2 and pandas 2.1 dropped, and ray's pkg_resources.
REQUIREMENTS: Final = ("recbole==1.2.1", "torch", "numpy<2", "pandas<2.1", "scipy<1.14", "setuptools<80")

#: Processor time of a training: it ends with the epoch in which this is over. Ten minutes of two cores.
BUDGET_S: Final = 1200.0
#: A machine that gives a training so small a share of a core has other things to do.
_LEAST_SHARE = 0.1

#: What a training takes beside its processor time: imports, reading, the lists.
_BESIDE_S = 1800.0
_PROGRAM = Path(__file__).with_name("recbole_training.py")

#: RecBole's defaults for both models.
_CONFIG: Final[dict[str, Any]] = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "TIME_FIELD": "timestamp",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "MAX_ITEM_LIST_LENGTH": 50,
    "train_batch_size": 256,
    "train_neg_sample_args": None,
    "eval_args": {"split": {"LS": "valid_only"}, "order": "TO", "group_by": "user", "mode": "full"},
    "metrics": ["NDCG"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "stopping_step": 10,
    "use_gpu": False,
    "show_progress": False,
    "seed": 2026,
}


class RecBole:
    """
    One model of RecBole. Lists are those of the histories at the last `fit`, for up to `size` items.

    Attributes
    ----------
    name
        The model's.
    result
        What the last training said: `epochs`, the best `epoch` and its `score` (NDCG@10 on each user's last event
        learned), and `cpu_s`.

    """

    def __init__(
        self, model: str, users: int, python: Path, *, size: int = 100, budget_s: float = BUDGET_S, threads: int = 2
    ) -> None:
        self.name = model
        self.result: dict[str, float] = {}
        self._python = python
        self._budget_s = budget_s
        self._shape = (2, users, size)
        self._job = {"model": model, "users": users, "size": size, "budget_s": budget_s, "threads": threads}
        self._parts: list[Interactions] = []
        self._lists = np.full((2, users, size), -1, np.int32)

    def learn(self, log: Interactions) -> None:
        """Take in what happened since the last call, in order."""
        self._parts.append(log)

    def fit(self) -> None:
        """
        Train on all that was learned.

        Raises
        ------
        DependencyError
            When RecBole fails; with the last line it said.

        """
        with tempfile.TemporaryDirectory(prefix="freshet-recbole-") as name:
            folder = Path(name)
            (folder / "log").mkdir()
            config = {**_CONFIG, "data_path": str(folder), "checkpoint_dir": str(folder / "saved")}
            (folder / "job.json").write_text(json.dumps({**self._job, "config": config}), encoding="utf-8")
            with (folder / "log" / "log.inter").open("w", encoding="utf-8") as file:
                file.write("user_id:token\titem_id:token\ttimestamp:float\n")
                # The place in the log for the time: exact in float32, in which RecBole keeps it, and never a tie.
                rows = ((user, item) for part in self._parts for user, item in zip(part.users, part.items, strict=True))
                file.writelines(f"{user}\t{item}\t{place}\n" for place, (user, item) in enumerate(rows))
            # Isolated, or `import recbole` would find this module beside the program.
            train = [str(self._python), "-I", str(_PROGRAM)]
            run_tool(train, f"training {self.name}", folder, self._budget_s / _LEAST_SHARE + _BESIDE_S)
            self.result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            lists = np.fromfile(folder / "lists.i4", "<i4").astype(np.int32)
            self._lists = lists.reshape(self._shape)

    def recommend(self, asking: Asking, size: int, *, exclude_seen: bool) -> Int32:
        """
        Return the lists (n, size) int32 of each who asks; -1 behind the last.

        Raises
        ------
        ConfigurationError
            For lists longer than were asked for in the beginning.

        """
        if size > self._lists.shape[2]:
            raise ConfigurationError(f"{self.name} was trained for lists of {self._lists.shape[2]} items, not {size}")
        return self._lists[0 if exclude_seen else 1, asking.users, :size]


def recbole_models(users: int, cache_dir: Path) -> list[RecBole]:
    """
    Return both models, untrained; the first call installs RecBole.

    Raises
    ------
    DependencyError
        When it cannot be installed.

    """
    python = recbole_python(cache_dir)
    return [RecBole(model, users, python) for model in MODELS]


def recbole_python(cache_dir: Path) -> Path:
    """
    Return the Python of RecBole's environment; the first call makes it.

    Raises
    ------
    DependencyError
        When uv is missing or a package cannot be installed.

    """
    return environment(cache_dir, "recbole", REQUIREMENTS, "\n".join((*REQUIREMENTS, "")).encode())
