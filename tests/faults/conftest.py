"""What the fault rows share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.scene import Fault, Scene, play, staged
from tests.support.services import SettingsFactory


@pytest.fixture
def played(settings_for: SettingsFactory, tmp_path: Path) -> Callable[[Fault], None]:
    """Let a row happen on the shared services, or on its own where it breaks them, and check the end."""
    return lambda fault: play(fault, settings_for, tmp_path)


@pytest.fixture
def staged_scene(settings_for: SettingsFactory, tmp_path: Path) -> Iterator[Callable[[Fault], Scene]]:
    """A scene that a test plays itself."""
    with ExitStack() as stack:
        yield lambda fault: stack.enter_context(staged(fault, settings_for, tmp_path))
