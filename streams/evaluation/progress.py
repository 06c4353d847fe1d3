"""What long steps tell of how far they are."""

from __future__ import annotations

from collections.abc import Callable

#: Told how many more are done.
Progress = Callable[[int], None]
#: Called with what is being done and how many there are to do.
Bars = Callable[[str, int], Progress]
