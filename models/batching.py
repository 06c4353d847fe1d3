"""
Batches by token budget: what a forward pass costs is rows times the longest row, not rows.

A fixed number of rows either starves the device on short texts or runs out of memory on long ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def plan_batches(lengths: Sequence[int], budget_tokens: int, batch_cost_tokens: int | None = None) -> list[list[int]]:
    """
    Split texts into batches of similar length, each within the budget after padding.

    Parameters
    ----------
    lengths
        Tokens of each text.
    budget_tokens
        Most tokens of a batch, padding included: rows * longest row. A text above the budget is a batch alone, so
        that every text is admitted.
    batch_cost_tokens
        What one more batch costs, in tokens. A batch ends early where the next text would bring more padding than
        that: where many texts are equally long, they become batches without any padding. None fills every batch.

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
    >>> plan_batches([2, 2, 2, 9, 9], budget_tokens=100, batch_cost_tokens=10)
    [[0, 1, 2], [3, 4]]

    """
    if budget_tokens < 1:
        raise ValueError(f"a batch needs a positive token budget, not {budget_tokens}")
    batches: list[list[int]] = []
    batch: list[int] = []
    text_tokens = 0
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Sorted upwards, so the newest row is the longest and sets the padded width.
        width = lengths[position]
        full = (len(batch) + 1) * width > budget_tokens
        wasteful = batch_cost_tokens is not None and len(batch) * width - text_tokens > batch_cost_tokens
        if batch and (full or wasteful):
            batches.append(batch)
            batch = []
            text_tokens = 0
        batch.append(position)
        text_tokens += width
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


def smallest_saturating(rate_of: Callable[[int], float], start: int, most: int, least_gain: float = 0.03) -> int:
    """
    Return the token budget at which a device is busy: doubled from `start` until that gains less than `least_gain`.

    A greater budget would only delay the first result and take memory. `rate_of` measures a budget (tokens a second);
    it returns 0 for one that does not fit.

    >>> smallest_saturating({1: 10.0, 2: 19.0, 4: 25.0, 8: 25.5, 16: 40.0}.__getitem__, start=1, most=16)
    4
    """
    budget, rate = start, rate_of(start)
    while rate > 0 and 2 * budget <= most and (doubled := rate_of(2 * budget)) >= (1 + least_gain) * rate:
        budget, rate = 2 * budget, doubled
    return budget
