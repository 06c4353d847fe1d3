"""
Encoder models on the wire: the JSON values of `models`.

The record `served` names the vector space that lists are made from, and the one before it. A record under a fingerprint
says which model it is; its encoder writes it at start.
"""

from __future__ import annotations

import msgspec

from streams.errors import RecordFormatError

#: Key of the record that names the vector space in use.
SERVED_KEY = b"served"


class Served(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    A vector space: fingerprint of its encoder, its dimension and the model's name.

    Attributes
    ----------
    previous
        The space that was served before, without its own `previous`; None for the first, and after a rollback.

    """

    fingerprint: str
    dim: int
    model: str = ""
    previous: Served | None = None

    def same_space(self, other: Served | None) -> bool:
        """Whether vectors of both may be compared, whatever was served before them."""
        return other is not None and (self.fingerprint, self.dim) == (other.fingerprint, other.dim)

    def encode(self) -> bytes:
        """
        Return the record value.

        >>> Served("0123456789abcdef", 384, "m").encode()
        b'{"fingerprint":"0123456789abcdef","dim":384,"model":"m"}'
        """
        return msgspec.json.encode(self)


_decoder = msgspec.json.Decoder(Served)


def decode_served(value: bytes) -> Served:
    """
    Read a record of `models`.

    >>> decode_served(b'{"fingerprint": "0123456789abcdef", "model": "m", "dim": 384}').dim
    384

    Raises
    ------
    RecordFormatError
        When it is not JSON of this shape.

    """
    try:
        served = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordFormatError(f"the served model cannot be read: {error}") from error
    for space in (served, served.previous):
        if space is not None and not (1 <= space.dim <= 65_535 and space.fingerprint):
            raise RecordFormatError("the served model needs a fingerprint and a dimension")
    return served
