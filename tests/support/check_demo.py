"""
Holds a finished demo against the plain-loop oracle: `python -m tests.support.check_demo` after `deploy/demo`.

Every user of MovieLens-100K must have a list of 20 in Redis that equals the last record on `recommendations`, made
from exactly the events of the log, without a disliked film, by versions that never fell.
"""

from __future__ import annotations

from streams.datasets.movielens import movielens
from streams.local.stack import Stack
from streams.settings import Settings
from tests.support.oracle import Oracle
from tests.support.verifier import check_everything


def main() -> None:
    """Check, and say how many users were checked."""
    settings = Stack(Settings.from_env()).settings
    oracle = Oracle()
    for entry in movielens(settings.cache_dir).entries:
        oracle.add(entry.topic, {**entry.fields, "ts": entry.ts_ms})
    lists = check_everything(settings, oracle)
    short = [user_id for user_id in oracle.users() if len(lists.items(user_id)) != settings.list_size]

    assert [] == short, f"{len(short)} users have a shorter list"

    print(f"{len(oracle.users())} users: every list is there, exact, and the same in Redis and in the topic")


if __name__ == "__main__":
    main()
