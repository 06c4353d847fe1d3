"""
The canonical text of an item: what the encoder reads, and the hash that says whether it changed.

Price and stock are left out on purpose: they change every hour and say nothing about what an item is, so each tick
would encode the whole catalogue again. Ranking reads them as features of their own.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

#: Part of every encoder fingerprint: raise it when the text below changes for the same item.
TEMPLATE_VERSION = 1

CONTENT_HASH_BYTES = 16


def canonical_text(
    *,
    title: str = "",
    category: str = "",
    brand: str = "",
    description: str = "",
    attributes: Iterable[tuple[str, str]] = (),
    tags: Iterable[str] = (),
    reviews: str = "",
) -> str:
    """
    Return one line of text, most telling field first, because models cut what is too long at the end.

    Unicode is NFC and every run of white space is one blank, so that two spellings of the same text are one text.
    Attributes and tags are sorted: their order carries no meaning and differs between producers. What others say of an
    item stands last: an item without it has the text it would have anyway. An item that says
    nothing gives the empty text, which has no vector.

    >>> canonical_text(title="Blue  mug", brand="Acme", attributes=[("size", "0.3 l")], tags=["gift", "cup"])
    'Blue mug. Acme. size: 0.3 l. cup, gift'
    >>> canonical_text(title=" ", tags=[""])
    ''
    """
    pairs = sorted((fold(name), fold(value)) for name, value in attributes)
    parts = [
        fold(title),
        fold(category),
        fold(brand),
        fold(description),
        "; ".join(f"{name}: {value}" if name else value for name, value in pairs if value),
        ", ".join(sorted({folded for tag in tags if (folded := fold(tag))})),
        fold(reviews),
    ]
    return ". ".join(part for part in parts if part)


def fold(text: str) -> str:
    """
    Return the text in NFC with white space folded and the ends stripped.

    >>> fold("  a   b ")
    'a b'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def content_hash(text: str, image: bytes = b"") -> bytes:
    """
    Return the blake2b-128 of a canonical text (16 bytes), and of the identity of the image that is encoded with it.

    The template version is not part of it: it is part of the fingerprint, under whose keys the hash is stored.

    >>> content_hash("Blue mug").hex()
    'ae4aeed51e89e6b284d57bfc4a5aa644'
    """
    digest = hashlib.blake2b(text.encode(), digest_size=CONTENT_HASH_BYTES).digest()
    if not image:
        return digest
    return hashlib.blake2b(digest + image, digest_size=CONTENT_HASH_BYTES, person=b"image").digest()
