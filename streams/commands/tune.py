"""`freshet tune`: ranking parameters that fit a log."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from streams.commands.common import err, examples, guarded, out, settings
from streams.commands.evaluate import ExcludeSeen, Items, LimitUsers, LogName, TestFrom, Text, bars, moment_ms

if TYPE_CHECKING:
    from models.ranking import RankingParameters

ValidateFrom = Annotated[
    str, typer.Option(metavar="TS", help="Judge by everything from here to the test; else by each user's last event.")
]
Trials = Annotated[int, typer.Option(min=1, help="Proposals tried.")]
Out = Annotated[Path, typer.Option("--out", help="Where the parameters are written, for FRESHET_RANKING_FILE.")]


@guarded
def tune(
    log: LogName,
    test_from: TestFrom = "",
    validate_from: ValidateFrom = "",
    items: Items = None,
    trials: Trials = 100,
    exclude_seen: ExcludeSeen = True,
    written: Out = Path("ranking.json"),
    seed: Annotated[int, typer.Option(help="The same seed makes the same proposals.")] = 1,
    limit_users: LimitUsers = None,
    text: Text = True,
) -> None:
    """
    Look for ranking parameters that fit a log, and write them to a file for FRESHET_RANKING_FILE.

    The live path learns the log once and ranks again for each proposal; NDCG@10 on a validation cut decides. The test
    is not looked at: everything from --test-from on, or else the last event of each user, is left out altogether.
    """
    from models.prebuilt import take_prebuilt
    from streams.evaluation.driving import learn
    from streams.evaluation.logs import find_log
    from streams.evaluation.runs import Run, freshet
    from streams.evaluation.tuning import tune as tuned
    from streams.evaluation.tuning import validation
    from streams.evaluation.vectors import encode_items
    from streams.experiments.definitions import load_ranking

    configured = settings()
    begin = load_ranking(configured.ranking_file)
    found = find_log(configured, log, items).first_users(limit_users)
    plan = validation(
        found.interactions,
        moment_ms(test_from) if test_from else None,
        moment_ms(validate_from) if validate_from else None,
    )
    take_prebuilt()
    with bars() as bar:
        encoded = encode_items(configured, found.cards, bar) if text and found.cards else None
        live = freshet(Run(settings=configured, log=found, plan=plan, protocol="tune", encoded=encoded))
        learn(live, plan.learned, bar("learn", len(plan.learned.users)))
        live.fit()
        best = tuned(
            live, plan, len(found.items), begin, trials=trials, exclude_seen=exclude_seen,
            scorer=configured.scorer_file is not None, seed=seed, progress=bar("tune", trials),
        )  # fmt: skip
    made = {"log": found.name, "trials": trials, "seed": seed, "ndcg@10": best.ndcg, "before": best.ndcg_before}
    _write(best.parameters, made, written)
    changes = _changes(best.parameters, begin)
    out.print(
        f"NDCG@10 on the validation cut: {best.ndcg_before:.4f} before, {best.ndcg:.4f} with {changes or 'no change'}"
    )
    err.print(f"written to {written}; FRESHET_RANKING_FILE={written} takes it", highlight=False)


def _changes(best: RankingParameters, begin: RankingParameters) -> str:
    before = dataclasses.asdict(begin)
    changed = {name: value for name, value in dataclasses.asdict(best).items() if value != before[name]}
    return ", ".join(f"{name} {value:.3g}" for name, value in changed.items())


def _write(best: RankingParameters, made: dict[str, Any], path: Path) -> None:
    ranking = {
        name: round(value, 4) if isinstance(value, float) else value for name, value in dataclasses.asdict(best).items()
    }
    path.write_bytes(orjson.dumps({"ranking": ranking, "made": made}, option=orjson.OPT_INDENT_2))


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(
        rich_help_panel="Quality",
        epilog=examples(
            "freshet tune movielens-100k",
            "freshet tune complete-journey --include-seen --test-from 2017-12-04 --validate-from 2017-11-06",
        ),
    )(tune)
