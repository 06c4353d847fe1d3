"""`freshet worker`, `freshet signals`, `freshet encoder`: what a pod runs."""

from __future__ import annotations

import os

import typer

from streams.commands.common import guarded, settings


@guarded
def worker() -> None:
    """Run an interest worker: folds events into user states and publishes fresh lists."""
    # Read by BLAS when NumPy is imported: a product for 256 users gains nothing from more threads, and its spinning
    # threads take the core that folds.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from streams.logs import configure
    from streams.roles.worker import run

    configured = settings()
    configure(configured, "worker")
    run(configured)


@guarded
def signals() -> None:
    """Run a signals worker: turns item events into popularity and item-to-item neighbours."""
    from streams.logs import configure
    from streams.roles.signals import run

    configured = settings()
    configure(configured, "signals")
    run(configured)


@guarded
def encoder() -> None:
    """Run an encoder worker: turns items into vectors, on a GPU when there is one."""
    from streams.logs import configure
    from streams.roles.encoder import run

    configured = settings()
    configure(configured, "encoder")
    run(configured)


def register(app: typer.Typer) -> None:
    """Add the roles to the command line."""
    for command in (worker, signals, encoder):
        app.command(rich_help_panel="Roles")(command)
