"""
Train one sequential model of RecBole and write every user's lists: a program for RecBole's own environment.

Started by `streams.evaluation.recbole`, in a folder that holds `job.json` and `log/log.inter`, where it leaves
`lists.i4` and `result.json`. Imports nothing of Freshet and, outside of `main`, nothing but Python itself.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

#: Users whose scores are found at once.
_BATCH = 256


class _TimeIsUpError(Exception):
    """Ends a training at the end of an epoch."""


def main() -> None:
    """
    Train on all but each user's last event, choose the epoch on these, and list for every user what comes next.

    The lists are made from full histories, (2, users, size) int32: without the items a user met, and with them. Users
    and items of the log are numbers, and stand as such in `lists.i4`; -1 behind the last.
    """
    import numpy as np  # noqa: PLC0415  # not in the environment of whoever only looks at this module
    import torch  # noqa: PLC0415
    from recbole.config import Config  # noqa: PLC0415
    from recbole.data import create_dataset, data_preparation  # noqa: PLC0415
    from recbole.utils import get_model, get_trainer, init_seed  # noqa: PLC0415

    job = json.loads(Path("job.json").read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    config = Config(model=job["model"], dataset="log", config_dict=job["config"])
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model = get_model(config["model"])(config, train.dataset)
    # Of the processor: on a machine that others use too, as many epochs are trained as on one that is free.
    started_s = time.process_time()
    best: dict[str, Any] = {"score": -1.0, "epoch": -1, "epochs": 0, "weights": None}

    def after_epoch(epoch: int, score: float) -> None:
        best["epochs"] = epoch + 1
        if score > best["score"]:
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            best.update(score=score, epoch=epoch + 1, weights=weights)
        if time.process_time() - started_s > job["budget_s"]:
            raise _TimeIsUpError

    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    with contextlib.suppress(_TimeIsUpError):
        trainer.fit(train, valid, saved=False, show_progress=False, callback_fn=after_epoch)
    model.load_state_dict(best.pop("weights"))
    model.eval()
    _lists(model, dataset, config, job, np, torch).astype("<i4").tofile("lists.i4")
    result = {**best, "cpu_s": time.process_time() - started_s}
    Path("result.json").write_text(json.dumps(result), encoding="utf-8")


def _lists(model: Any, dataset: Any, config: Any, job: dict[str, Any], np: Any, torch: Any) -> Any:
    """Return the best items of every user by the model, under both masks."""
    longest = config["MAX_ITEM_LIST_LENGTH"]
    numbers = np.array([-1, *(int(token) for token in dataset.field2id_token["item_id"][1:])], np.int32)
    places = {number: place for place, number in enumerate(numbers.tolist())}
    histories: dict[int, list[int]] = {}
    with Path("log/log.inter").open(encoding="utf-8") as file:
        next(file)
        for line in file:
            who, what, _ = line.split("\t")
            histories.setdefault(int(who), []).append(places[int(what)])
    lists = np.full((2, job["users"], job["size"]), -1, np.int32)
    users = sorted(histories)
    for begin in range(0, len(users), _BATCH):
        batch = users[begin : begin + _BATCH]
        sequences = torch.zeros((len(batch), longest), dtype=torch.long)
        lengths = torch.tensor([min(len(histories[user]), longest) for user in batch])
        for row, user in enumerate(batch):
            sequences[row, : lengths[row]] = torch.tensor(histories[user][-longest:])
        with torch.no_grad():
            scores = model.full_sort_predict({"item_id_list": sequences, "item_length": lengths}).clone()
        # The first place is padding, no item.
        scores[:, 0] = -torch.inf
        lists[1, batch] = _best(scores, numbers, job["size"], np)
        for row, user in enumerate(batch):
            scores[row, histories[user]] = -torch.inf
        lists[0, batch] = _best(scores, numbers, job["size"], np)
    return lists


def _best(scores: Any, numbers: Any, size: int, np: Any) -> Any:
    top = scores.topk(min(size, scores.shape[1]), dim=1)
    found = np.where(np.isfinite(top.values.numpy()), numbers[top.indices.numpy()], -1)
    return np.pad(found, ((0, 0), (0, size - found.shape[1])), constant_values=-1)


if __name__ == "__main__":
    main()
