"""`freshet train`: a scorer that learns from a log which items users go for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.commands.common import err, examples, guarded, out, settings
from streams.commands.evaluate import Items, LimitUsers, LogName, TestFrom, bars, moment_ms
from streams.errors import ConfigurationError, ModelError

ValidateFrom = Annotated[
    str, typer.Option(metavar="TS", help="Learn from what is before; else from all but each user's last events.")
]
Hidden = Annotated[int, typer.Option(min=1, max=64, help="Hidden units; the time of a ranking grows with them.")]
Out = Annotated[Path, typer.Option("--out", help="Where the scorer is written, for FRESHET_SCORER_FILE.")]


@guarded
def train(
    log: LogName,
    test_from: TestFrom = "",
    validate_from: ValidateFrom = "",
    items: Items = None,
    hidden: Hidden = 8,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over what is learned from.")] = 30,
    written: Out = Path("scorer.safetensors"),
    seed: Annotated[int, typer.Option(help="The same seed makes the same samples and begins alike.")] = 1,
    limit_users: LimitUsers = None,
) -> None:
    """
    Teach a scorer which items users go for, by a log, and write it to a file for FRESHET_SCORER_FILE.

    The live path learns the log in virtual time; what it knew of users just before they were shown items, or without
    impressions before they met some, is what the scorer learns from. It stops when the newest tenth says so. What
    `freshet tune` judges by and what `freshet evaluate` asks about is left out, with the same options as theirs.
    """
    from models import errors
    from models.interaction_network import teach
    from models.prebuilt import take_prebuilt
    from models.scorer_file import TrainedScorer, save_scorer
    from streams.evaluation.logs import find_log
    from streams.evaluation.runs import Run, freshet
    from streams.evaluation.teaching import pairs_of, shown_or_sampled
    from streams.evaluation.tuning import validation
    from streams.evaluation.vectors import encode_items

    # What is there already has no say in what is learned.
    configured = settings().model_copy(update={"scorer_file": None})
    if not written.parent.is_dir():
        raise ConfigurationError(f"--out {written}: there is no folder {written.parent}")
    found = find_log(configured, log, items).first_users(limit_users)
    if not found.cards:
        raise ConfigurationError("a scorer reads item vectors, and nothing is told of this log's items: see --items")
    plan = validation(
        found.interactions,
        moment_ms(test_from) if test_from else None,
        moment_ms(validate_from) if validate_from else None,
    )
    take_prebuilt()
    with bars() as bar:
        encoded = encode_items(configured, found.cards, bar)
        live = freshet(Run(settings=configured, log=found, plan=plan, protocol="train", encoded=encoded))
        shown = shown_or_sampled(plan.learned, found.impressions, len(found.items), seed)
        bar_of_log = bar("learn", len(plan.learned.users))
        pairs = pairs_of(live, plan.learned, shown, len(found.items), seed, bar_of_log)
        try:
            taught = teach(pairs, hidden=hidden, seed=seed, epochs=epochs, progress=bar("train", epochs))
            made = {"log": found.name, "seed": seed, **{name: getattr(taught, name) for name in taught._fields[1:]}}
            save_scorer(TrainedScorer(taught.scorer, encoded.served.fingerprint, made), written)
        except errors.ModelError as error:
            raise ModelError(str(error)) from error
    out.print(
        f"AUC on the newest {taught.judged:,} of {taught.pairs + taught.judged:,} examples: "
        f"{taught.auc_untaught:.3f} before, {taught.auc:.3f} after {taught.epochs} passes"
    )
    err.print(
        f"written to {written}; FRESHET_SCORER_FILE={written} takes it, the ranking parameter `network` weighs it",
        highlight=False,
    )


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(
        rich_help_panel="Quality",
        epilog=examples(
            "freshet train movielens-100k",
            "freshet train clicks.jsonl --items items.jsonl --test-from 2024-05-01 --validate-from 2024-04-01",
        ),
    )(train)
