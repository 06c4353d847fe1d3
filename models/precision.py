"""
Which precision a model runs in: the fastest whose vectors are as good as float32's, by measurement at start.

A guess would be wrong on half of the machines: with matrix units for bf16 a small model runs three times as fast, and
without them slower. int8 is no candidate. MiniLM-L6 with all its linear layers in int8 gives a cosine of 0.96 by the
dynamic layers of torch, which are to be removed from it, and of 0.997 with a recall@10 of 0.956 where each token and
each row of weights has its own scale. With only as many layers in int8 as pass, it is slower than in bf16.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Precision = Literal["fp32", "fp16", "bf16"]

#: A vector this close to its float32 twin ranks as it does.
LEAST_COSINE = 0.999
#: Or the ten nearest of each text stay the same, but for one in fifty, and no text is further off than this.
LEAST_RECALL = 0.98
_LEAST_COSINE_WITH_RECALL = 0.99
#: Two measurements of the same code differ by some percent; a change of precision has to bring more.
_LEAST_GAIN = 1.1
#: A candidate this much slower in its first round is not measured further: without hardware for it that takes seconds.
_HOPELESS = 4.0
_NEAREST = 10

_ITEMS = """
Stoneware coffee mug|Kitchen|Dunmore|Glazed by hand, holds 0.35 l, safe in dishwasher and microwave
Cast iron skillet 26 cm|Cookware|Ferrum|Pre-seasoned pan for every hob and the oven, with a pouring lip on both sides
Extra virgin olive oil|Grocery|Kalamata Mills|Cold pressed from one harvest, 750 ml bottle
Whole bean espresso roast|Coffee|Night Shift|Dark roast of arabica and robusta with notes of cocoa and walnut
Organic rolled oats 1 kg|Breakfast|Fieldsong|Wholegrain, no sugar added
Greek style yoghurt|Dairy|Alpine Cow|10 % fat, four cups of 125 g
Frozen garden peas|Frozen food|Green Acre|Picked young and frozen within three hours
Smoked paprika sweet|Spices|La Vera|Dried over oak fires, tin of 70 g
Waterproof hiking boots|Shoes|Northridge|Membrane lining, rubber sole with deep lugs, for wet trails and snow
Men's merino base layer|Clothing|Woolmark Trail|Thin long-sleeved shirt that keeps warm when wet and does not smell
Linen summer dress|Clothing|Marisol|Knee length, two pockets, stone washed
Children's rain jacket|Clothing|Puddle|Reflective stripes and a hood that gives way when caught
Wireless noise cancelling headphones|Audio|Sonora|Over-ear, 30 hours of battery, folds into its case
Bluetooth speaker mini|Audio|Sonora|Floats on water and survives a fall from the table
Mechanical keyboard 75 %|Computers|Keyforge|Hot-swappable brown switches, aluminium frame, USB-C
27 inch 4K monitor|Computers|Lumen|IPS panel with full sRGB, height adjustable stand, charges a laptop at 90 W
Solid state drive 1 TB NVMe|Computers|Quickcell|7,000 MB/s reading, five years of warranty
Cordless drill 18 V|Tools|Hartmann|Two-speed gearbox, two batteries, charger and 34 bits in a case
Garden hose 25 m|Garden|Rainbird|Does not kink, with nozzle and couplings
Tomato seeds San Marzano|Garden|Heirloom Seed Co.|For sauce, sow indoors from March
Cordless lawn mower 40 cm|Garden|Hartmann|Cuts 400 square metres on one charge, mulches and collects
Yoga mat natural rubber|Sports|Stillpoint|5 mm thick, grips when wet, rolls up with its strap
Road bike inner tube 28 inch|Cycling|Velora|Presta valve of 60 mm, two in a pack
Adult tennis racket|Sports|Baseline|285 g, pre-strung, for players who look for control
The Last Lighthouse: a novel|Books|Harbour Press|A keeper's daughter finds a diary that was not meant to be read
Introduction to linear algebra|Textbooks|Axiom|Vectors, matrices and eigenvalues with worked exercises, fifth edition
The Silent Orbit (1997)|Science fiction|Meridian Pictures|A mining crew answers a signal sent before they were born
Laughing in Lisbon (1994)|Comedy, romance|Meridian Pictures|Two rival cooks inherit the same small restaurant
Wooden train set 60 pieces|Toys|Kindling|Beech rails, a crane and a bridge, from three years
Vitamin D3 drops|Health|Helia|1,000 IU a drop in sunflower oil, 30 ml
Fragrance free shampoo|Beauty|Plainly|For sensitive scalp, without silicone, 250 ml refill
Cat litter clumping 10 l|Pets|Whisker|Made of plant fibre, binds smell for a week
""".strip()


def _canaries() -> tuple[str, ...]:
    rows = [line.split("|") for line in _ITEMS.splitlines()]
    return tuple(". ".join(row[:2]) for row in rows) + tuple(". ".join(row) for row in rows)


#: 64 texts as items have them, short and long: what a precision is judged on.
CANARIES = _canaries()


class Trial(NamedTuple):
    """
    One precision on the canary texts.

    Attributes
    ----------
    texts_per_s
        Of the fastest round: what else runs on the machine only ever takes time.
    worst_cosine
        Least cosine of a text's vector and its float32 twin.
    recall_at_10
        Share of each text's ten nearest under float32 that are so under this precision.

    """

    precision: Precision
    texts_per_s: float
    worst_cosine: float
    recall_at_10: float

    @property
    def passed(self) -> bool:
        """Whether the vectors may stand beside float32's."""
        return self.worst_cosine >= LEAST_COSINE or (
            self.recall_at_10 >= LEAST_RECALL and self.worst_cosine >= _LEAST_COSINE_WITH_RECALL
        )


def drift(reference: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32]) -> tuple[float, float]:
    """
    Return (least cosine, recall@10) of (n, dim) float32 unit vectors against their float32 twins.

    >>> exact = np.eye(12, dtype=np.float32)
    >>> drift(exact, exact)
    (1.0, 1.0)
    """
    cosines = np.einsum("ij,ij->i", reference, vectors)
    nearest = [_nearest(each) for each in (reference, vectors)]
    kept = sum(len(set(wanted) & set(found)) for wanted, found in zip(*nearest, strict=True))
    # Not finite means useless, and a comparison with NaN is false.
    return float(np.nan_to_num(cosines, nan=-1.0).min()), kept / nearest[0].size


def _nearest(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """(n, dim) to (n, 10): each row's nearest others."""
    products = vectors @ vectors.T
    np.fill_diagonal(products, -np.inf)
    # Stable, so that texts that are equally near come in the same order on both sides.
    found: npt.NDArray[np.int64] = np.argsort(-products, axis=1, kind="stable")[:, :_NEAREST]
    return found


def try_out(
    runs: Sequence[tuple[Precision, Callable[[], npt.NDArray[np.float32]]]],
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Trial]:
    """
    Measure precisions against the first of them, which is the reference.

    They take turns, so that a busy moment of the machine falls on all of them.

    Parameters
    ----------
    runs
        Precision, and what encodes the canary texts in it: (n, dim) float32 unit vectors.
    rounds
        Measured rounds, after one that warms up.

    """

    def timed(run: Callable[[], npt.NDArray[np.float32]]) -> tuple[float, npt.NDArray[np.float32]]:
        began = clock()
        vectors = run()
        return clock() - began, vectors

    warm = [timed(run) for _, run in runs]
    first_s, reference = warm[0]
    times = [[took_s] if took_s > _HOPELESS * first_s else [] for took_s, _ in warm]
    hopeless = [bool(taken) for taken in times]
    for _ in range(rounds):
        for place, (_, run) in enumerate(runs):
            if not hopeless[place]:
                times[place].append(timed(run)[0])
    return [
        Trial(precision, len(reference) / min(taken), *drift(reference, vectors))
        for (precision, _), taken, (_, vectors) in zip(runs, times, warm, strict=True)
    ]


def choose(trials: Sequence[Trial]) -> Precision:
    """
    Return the fastest precision that passes; the first, the reference, unless another gains a tenth.

    >>> exact = Trial("fp32", 700.0, 1.0, 1.0)
    >>> choose([exact, Trial("bf16", 2000.0, 0.9999, 1.0)]), choose([exact, Trial("bf16", 2000.0, 0.9, 0.8)])
    ('bf16', 'fp32')
    """
    reference, *others = trials
    better = [trial for trial in others if trial.passed and trial.texts_per_s >= _LEAST_GAIN * reference.texts_per_s]
    return max(better, key=lambda trial: trial.texts_per_s, default=reference).precision
