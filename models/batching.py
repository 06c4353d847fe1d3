"""
Batches by token budget: what a forward pass costs is rows times the longest row, not rows.

A fixed number of rows either starves the device on short texts or runs out of memory on long ones.
"""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """
    Split texts into batches of similar length, each within the budget after padding.

    Parameters
    ----------
    lengths
        Tokens of each text.
    budget_tokens
        Most tokens of a batch, padding included: rows * longest row. A text above the budget is a batch alone, so
        that every text is admitted.

    Returns
    -------
    Batches of positions in `lengths`, shortest texts first; each position exactly once. Equal lengths keep their
    order, so the plan is a function of its input.

    Raises
    ------
    ValueError
        When the budget is not positive.

    >>> plan_batches([5, 1, 3, 2], budget_tokens=6)
    [[1, 3], [2], [0]]

    """
    if budget_tokens < 1:
        raise ValueError(f"a batch needs a positive token budget, not {budget_tokens}")
    batches: list[list[int]] = []
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Sorted upwards, so the newest row is the longest and sets the padded width.
        if batch and (len(batch) + 1) * lengths[position] > budget_tokens:
            batches.append(batch)
            batch = []
        batch.append(position)
    if batch:
        batches.append(batch)
    return batches


def padding_tokens(lengths: Sequence[int]) -> int:
    """
    Return the tokens that padding adds to one batch.

    >>> padding_tokens([1, 2, 3])
    3
    """
    return len(lengths) * max(lengths, default=0) - sum(lengths)
