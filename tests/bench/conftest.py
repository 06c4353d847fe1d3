"""Peers run in an environment of their own: pytest, which looks for doctests everywhere, cannot import them."""

from __future__ import annotations

collect_ignore_glob = ["stream/peers/*", "encoder/peers/*"]
