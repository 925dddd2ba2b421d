"""How little a few masks tell: how far the threshold they choose, and the Dice they promise, may be off.

Settings of weakly supervised methods are chosen on a handful of masks (six in the survey's GlaS folds, ten on CAMELYON16). The
percentile bootstrap of six patients pretends: it knows no threshold beyond those that these six can make. So the standard error
of the bootstrap is widened by what few patients hide, and Student's t does the rest (`student_interval`).

Measured on simulated patients (their scores shifted, their lesions more or less clear), 400 validation sets of each size, in two
settings: how often 95 percent intervals held the best threshold and the best Dice of 3,000 patients, and how often another set
of as many masks stayed within the shift that is given. In brackets the percentile bootstrap, in the first setting:

| masks of patients | threshold             | Dice                  | threshold shift | Dice shift |
|-------------------|-----------------------|-----------------------|-----------------|------------|
| 6 of 4            | 0.97 and 0.97 (0.82)  | 0.95 and 0.94 (0.77)  | 0.95 and 0.93   | 0.95, 0.92 |
| 6 of 6            | 0.97 and 0.97 (0.87)  | 0.93 and 0.93 (0.88)  | 0.96 and 0.93   | 0.95, 0.94 |
| 10 of 10          | 0.96 and 0.96         | 0.92 and 0.91         | 0.95 and 0.94   | 0.94, 0.92 |
| 20 of 10          | 0.97 and 0.97 (0.93)  | 0.94 and 0.92 (0.93)  | 0.96 and 0.96   | 0.93, 0.95 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsol.evaluation.counts import Floats, PixelCounts, at_least, edges, quotient
from wsol.evaluation.intervals import Interval, plain, resampled_sums, student_interval
from wsol.evaluation.thresholds import best_threshold, middle_of_best


@dataclass(frozen=True)
class FewMasks:
    """What a validation set tells about a threshold, and how far to trust it. NaN where nothing says how far.

    Attributes:
        metric: "dice" or "iou", what the threshold is best at.
        threshold: the best one on these masks.
        threshold_low: with `threshold_high` the 95 percent interval of the threshold that is best over all such patients.
        threshold_high: see `threshold_low`.
        threshold_shift: another set of as many masks chooses, 19 times of 20, a threshold no farther away than this.
        value: the metric at the best threshold, on these masks. It was chosen to be high.
        value_low: with `value_high` the 95 percent interval of the best value over all such patients.
        value_high: see `value_low`.
        value_shift: how far the value moves with another set of as many masks, 19 times of 20.
        masks: their number.
        patients: theirs; 0 if any is unknown.
        sentence: all this in plain words.
    """

    metric: str
    threshold: float
    threshold_low: float
    threshold_high: float
    threshold_shift: float
    value: float
    value_low: float
    value_high: float
    value_shift: float
    masks: int
    patients: int
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file: the intervals under "threshold" and under the metric's name, and the facts."""
        return {
            "threshold": [plain(self.threshold_low), plain(self.threshold_high)],
            self.metric: [plain(self.value_low), plain(self.value_high)],
            "threshold_shift": plain(self.threshold_shift),
            f"{self.metric}_shift": plain(self.value_shift),
            "masks": self.masks,
            "patients": self.patients,
            "sentence": self.sentence,
        }


def few_masks(
    counts: Sequence[PixelCounts],
    patients: Sequence[str],
    metric: str = "dice",
    *,
    generator: np.random.Generator,
    replicates: int = 1000,
    masks: int | None = None,
) -> FewMasks:
    """The threshold that few validation masks choose, with intervals that do not pretend.

    Patients are drawn with replacement, the threshold is chosen anew on each draw. With one patient, or an unknown one, there is
    no interval, and the sentence says so.

    Args:
        counts: one per validation mask, all with the same bins.
        patients: (n,) names, "" where unknown.
        metric: "dice" or "iou".
        generator: for the bootstrap.
        replicates: bootstrap replicates.
        masks: how many of them were drawn by somebody; the others are known to be empty. None: all.

    Raises:
        ValueError: no masks, not one patient per mask, an unknown metric, or masks without a positive pixel.
    """
    names, drawn_masks = [str(p) for p in patients], len(counts) if masks is None else masks
    if len(names) != len(counts):
        raise ValueError(f"need one patient per mask, got {len(names)} for {len(counts)}")
    total = PixelCounts.total(counts)
    chosen = best_threshold(total, metric, masks=len(counts)).value
    value = float(getattr(total.at(chosen), metric))
    clusters = 0 if "" in names else len(set(names))
    none = Interval((float("nan"), float("nan")), clusters)
    ends, shifts = [none, none], [float("nan"), float("nan")]
    if clusters > 1:
        drawn = _drawn(counts, names, metric, replicates, generator)
        for i, estimate in enumerate((chosen, value)):
            ends[i] = student_interval(drawn[i], estimate, clusters, within=(0.0, 1.0))
            whole = student_interval(drawn[i], estimate, clusters)
            shifts[i] = float(np.sqrt(2.0) * (whole.high - whole.low) / 2)  # of two sets each has the error of one
    sentence = _sentence(drawn_masks, clusters, metric, (chosen, *ends[0].bounds, shifts[0]), (value, *ends[1].bounds, shifts[1]))
    return FewMasks(
        metric, chosen, *ends[0].bounds, shifts[0], value, *ends[1].bounds, shifts[1], drawn_masks, clusters, sentence
    )


def _drawn(
    counts: Sequence[PixelCounts], patients: Sequence[str], metric: str, replicates: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Best threshold and its value, (r,) each, of draws of patients; NaN where a draw has no positive pixel."""
    table = np.hstack([np.stack([c.positives for c in counts]), np.stack([c.negatives for c in counts])])
    sums = resampled_sums(table, patients, replicates=replicates, generator=generator).astype(np.int64)
    positives, negatives = np.split(sums, 2, axis=1)
    tp, fp, every = at_least(positives), at_least(negatives), positives.sum(axis=1, keepdims=True)
    values = quotient(2 * tp, tp + fp + every) if metric == "dice" else quotient(tp, fp + every)
    values[every[:, 0] == 0] = np.nan
    best = [middle_of_best(row) for row in values]
    grid = edges(counts[0].bins)
    thresholds = np.array([np.nan if at is None else grid[at] for at in best])
    return thresholds, np.array([np.nan if at is None else row[at] for at, row in zip(best, values, strict=True)])


def _sentence(masks: int, patients: int, metric: str, threshold: tuple[float, ...], value: tuple[float, ...]) -> str:
    """Each tuple is (estimate, low, high, shift)."""
    name = {"dice": "Dice", "iou": "IoU"}[metric]
    many = f"{masks} mask{'s' * (masks != 1)}"
    who = f"{patients} patient{'s' * (patients != 1)}" if patients else "unknown patients"
    if not threshold[1] <= threshold[2]:
        return (
            f"{many} of {who}: nothing tells how far the threshold {threshold[0]:.2f} and its {name} of {value[0]:.2f} would move"
            " with other patients."
        )
    return (
        f"{many} of {who}: the best threshold lies anywhere between {threshold[1]:.2f} and {threshold[2]:.2f}, its {name}"
        f" anywhere between {value[1]:.2f} and {value[2]:.2f} (95 percent); as many other masks may move the threshold"
        f" {threshold[0]:.2f} by {threshold[3]:.2f} and the {name} {value[0]:.2f} by {value[3]:.2f}."
    )
