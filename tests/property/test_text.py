"""The canonical text: one item, one text, however it was written down."""

from __future__ import annotations

import unicodedata
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from models.text import CONTENT_HASH_BYTES, canonical_text, content_hash, fold

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=5)
TAGS = st.lists(TEXT, max_size=5)


@given(TEXT, TEXT, PAIRS, TAGS, st.randoms(use_true_random=False))
def test_order_and_spelling_do_not_matter(
    title: str, description: str, pairs: list[tuple[str, str]], tags: list[str], shuffle: Random
) -> None:
    """Decomposed Unicode, other white space and another order of tags and attributes give the same text."""
    plain = canonical_text(title=title, description=description, attributes=pairs, tags=tags)
    other_pairs, other_tags = list(pairs), [f" {tag}\n" for tag in tags]
    shuffle.shuffle(other_pairs)
    shuffle.shuffle(other_tags)
    other = canonical_text(
        title=unicodedata.normalize("NFD", f"\t{title} "),
        description=description,
        attributes=other_pairs,
        tags=other_tags,
    )
    assert other == plain


@given(TEXT, TAGS, TEXT)
def test_reviews_are_read_last(title: str, tags: list[str], reviews: str) -> None:
    """What else there is stands before them unchanged, so that a cut takes them first."""
    without = canonical_text(title=title, tags=tags)
    assert canonical_text(title=title, tags=tags, reviews=reviews) == ". ".join(filter(None, [without, fold(reviews)]))


@given(TEXT)
def test_folding_twice_is_folding_once(text: str) -> None:
    """Folded text is in its final form."""
    assert fold(fold(text)) == fold(text)


@given(TEXT, TEXT)
def test_the_hash_is_the_texts(first: str, second: str) -> None:
    """Equal texts have equal hashes, others differ."""
    assert (content_hash(first) == content_hash(second)) == (first == second)
    assert len(content_hash(first)) == CONTENT_HASH_BYTES
