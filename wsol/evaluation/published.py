"""Known defects of the published code, each reproduced on purpose beside the number that it spoils.

They were found in the code of the survey (Rony et al., MELBA 2023), most of them in that of NEGEV, MAXMIN and PixelCAM too. A
defect never replaces a number: what it makes of it stands beside, under the name of the defect. Two of them lie in the evaluation
and are made here; the others lie in heads and in the drawing of seeds, where an option turns them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from wsol._names import closest
from wsol.evaluation.counts import PixelCounts, edges
from wsol.evaluation.intervals import plain
from wsol.evaluation.outcomes import Confusion
from wsol.evaluation.thresholds import Threshold


def miou_threshold(counts: PixelCounts) -> Threshold:
    """The edge at which the mean IoU of foreground and background is largest on the scored masks; of equals the highest.

    So the survey's code chooses where it takes Dice and confusion: the threshold of the validation masks is computed, and then
    overwritten. It scans from high to low; that it keeps the first of equals is our reconstruction.

    Raises:
        ValueError: the masks hold no positive, or no negative pixel.
    """
    if not counts.positives.any() or not counts.negatives.any():
        raise ValueError("the scored masks hold only one kind of pixel: no threshold is best on them")
    c = counts.curve()
    miou = (c.tp / (c.tp + c.fp + c.fn) + c.tn / (c.tn + c.fp + c.fn)) / 2
    return Threshold(float(edges(counts.bins)[np.flatnonzero(miou == miou.max())[-1]]), "test oracle")


def mirrored(value: float, bins: int = 1000) -> float:
    """The threshold that is reported for `value`: 1.001 - value, an edge of the bins; above 1, where nothing is flagged, for 0.

    Counts run from high to low in the survey's code and its list of thresholds from low to high: the index of the best one finds
    its mirror image. With 1000 bins there are 1002 counts, hence the 1.001, which is 1 + 1 / bins.

    Raises:
        ValueError: a threshold outside [0, 1].
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"a threshold must lie in [0, 1], got {value!r}")
    return (bins + 1 - round(value * bins)) / bins


def _test(counts: PixelCounts, threshold: Threshold) -> float:
    return miou_threshold(counts).value


def _mirror(counts: PixelCounts, threshold: Threshold) -> float:
    if threshold.values is not None:
        raise ValueError("one threshold for all is mirrored; here every image has its own")
    return mirrored(threshold.value, counts.bins)


_REPORTED: dict[str, Callable[[PixelCounts, Threshold], float]] = {"test-threshold": _test, "mirrored-threshold": _mirror}


def as_published(defects: Iterable[str], counts: PixelCounts, threshold: Threshold) -> dict[str, dict[str, Any]]:
    """What each defect of the evaluation, alone, makes of the numbers at a threshold.

    Args:
        defects: `test-threshold`: numbers at the threshold that is best on the scored masks. `mirrored-threshold`: the mirror
            image of the chosen threshold is reported, and the numbers are what somebody gets who uses it.
        counts: of all scored samples.
        threshold: the one that was chosen without the defect.

    Returns:
        Defect -> "badge", "threshold", "dice", "iou", "precision", "recall", "miou" (None where undefined); or "refused", the
        reason why there is no number.

    Raises:
        ValueError: an unknown defect, or one that does not lie in the evaluation.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in defects:
        if name not in _REPORTED:
            raise ValueError(closest("defect of the evaluation", name, _REPORTED))
        try:
            value = _REPORTED[name](counts, threshold)
        except ValueError as error:
            found[name] = {"refused": str(error)}
            continue
        here = counts.at(counts.nearest_edge(value)) if value <= 1 else _nothing_flagged(counts, value)
        numbers = {k: plain(getattr(here, k)) for k in ("dice", "iou", "precision", "recall", "miou")}
        found[name] = {"badge": f"as published: {name}", "threshold": value, **numbers}
    return found


def _nothing_flagged(counts: PixelCounts, value: float) -> Confusion:
    return Confusion(value, 0, 0, int(counts.positives.sum()), int(counts.negatives.sum()))
