"""What validation says about the maps of one method: the scale they get, and the threshold every source would choose.

Nothing here ever sees the split that is scored, but for the two sources that are per image by definition (per-image Otsu, and the
scale of each slide), which see its maps and never its masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wsol.cli.schema import Conformal, Evaluate
from wsol.cli.scoring import Scale, laid, mask_of, score

if TYPE_CHECKING:
    from wsol.data import Masks, StoredMap
    from wsol.evaluation import PixelCounts, Threshold
    from wsol.evaluation.counts import Counts

_NAMES = {"validation-masks": "validation masks", "per-image-otsu": "per-image otsu"}  # as a `Threshold` calls its sources

MASKED = {"auto", "validation-masks", "prevalence-matched"}
"""Sources that open validation masks."""


@dataclass(frozen=True)
class Split:
    """What is known of the validation samples before a map is opened.

    Attributes:
        masked: samples (role valpx) whose masks may be opened.
        negatives: samples whose label says that they hold nothing to find.
        patients: sample -> patient, "" where unknown.
    """

    masked: set[str]
    negatives: set[str]
    patients: Mapping[str, str]


@dataclass(frozen=True)
class Tuning:
    """Counts of the validation maps of one method under one scale.

    Attributes:
        masked: sample -> counts, of the masks that were opened.
        histograms: sample -> pixels per score bin, of all validation maps.
        files: how many of the masks are files; the others are known, by their label, to be empty.
        split: whose samples they are.
    """

    masked: dict[str, PixelCounts]
    histograms: dict[str, Counts]
    files: int
    split: Split = field(repr=False)

    @property
    def pooled(self) -> PixelCounts | None:
        """All masked samples together; None where no mask holds any foreground."""
        from wsol.evaluation import PixelCounts

        total = PixelCounts.total(list(self.masked.values())) if self.masked else None
        return total if total is not None and total.positives.any() else None

    @property
    def histogram(self) -> Counts:
        """Pixels of all validation maps per score bin."""
        return sum(self.histograms.values(), start=np.zeros(1001, np.int64))


def tune(settings: Evaluate, scale: Scale, truth: Masks, maps: Iterable[tuple[str, StoredMap]], split: Split) -> Tuning:
    """Count the validation maps of one method. Masks are opened only for sources that are asked for and need them."""
    from wsol.evaluation import PixelCounts, count_pixels, score_histogram

    opens = bool(MASKED & {settings.threshold, *settings.compare_thresholds})
    masked: dict[str, PixelCounts] = {}
    histograms: dict[str, Counts] = {}
    for sample, stored in maps:
        if opens and sample in split.masked and truth.has(sample):
            mask = mask_of(truth, sample, stored, settings.size)
            masked[sample] = PixelCounts.total(count_pixels(*part) for part in laid(stored, scale, mask, sample))
        histograms[sample] = score_histogram(score(stored, scale, stored.array.shape, sample))
    files = sum(truth.kind(sample) == "file" for sample in masked)
    return Tuning(masked, histograms, files, split)


def _validation_masks(settings: Evaluate, tuning: Tuning) -> Threshold:
    from wsol.evaluation import best_threshold

    if tuning.pooled is None:
        raise ValueError("no validation sample has a mask with foreground; use auto, otsu or fixed")
    return best_threshold(tuning.pooled, source="validation masks", masks=tuning.files)


def _fixed(settings: Evaluate, tuning: Tuning) -> Threshold:
    from wsol.evaluation import Threshold

    return Threshold(settings.fixed, "fixed")


def _otsu(settings: Evaluate, tuning: Tuning) -> Threshold:
    from wsol.evaluation import otsu

    if not tuning.histogram.any():
        raise ValueError("there is no validation map to take it from; use fixed")
    return otsu(tuning.histogram)


def _prevalence_matched(settings: Evaluate, tuning: Tuning) -> Threshold:
    from wsol.evaluation import prevalence_matched

    if settings.prevalence is not None:
        return prevalence_matched(tuning.histogram, settings.prevalence)
    if tuning.pooled is None:
        raise ValueError("no validation mask says how much foreground to expect; give evaluate.prevalence")
    return prevalence_matched(tuning.pooled.histogram, tuning.pooled.prevalence, masks=tuning.files)


def _conformal(settings: Evaluate, tuning: Tuning) -> Threshold:
    from wsol.evaluation import conformal_threshold

    split, how = tuning.split, settings.conformal
    chosen = [s for s in tuning.histograms if s in split.negatives]
    if not chosen:
        raise ValueError(
            "no validation sample is negative by its label, and nothing else says what a false alarm is (`wsol compare`: name "
            "such labels by --negative)"
        )
    return conformal_threshold(
        [tuning.histograms[s] for s in chosen], [split.patients[s] for s in chosen], **Conformal.model_dump(how)
    )


SOURCES: dict[str, Callable[[Evaluate, Tuning], Threshold]] = {
    "validation-masks": _validation_masks,
    "fixed": _fixed,
    "otsu": _otsu,
    "prevalence-matched": _prevalence_matched,
    "conformal": _conformal,
}
"""Source -> how it chooses. Per-image Otsu chooses nothing beforehand; see `threshold_from`."""


def threshold_from(source: str, settings: Evaluate, tuning: Tuning, scored: Mapping[str, Counts]) -> Threshold:
    """The threshold of one source.

    Args:
        source: of `settings.threshold`, never "auto".
        settings: what the sources need.
        tuning: the validation maps.
        scored: sample -> histogram of the maps that are scored, for per-image Otsu.

    Raises:
        ValueError: the source cannot choose one; the message says why.
    """
    from wsol.evaluation import per_image_otsu

    return per_image_otsu(scored) if source == "per-image-otsu" else SOURCES[source](settings, tuning)


def chosen_threshold(settings: Evaluate, tuning: Tuning, scored: Mapping[str, Counts]) -> Threshold:
    """The threshold of the study; `auto`: validation masks where there are some, else Otsu, else the fixed one."""
    source = settings.threshold
    if source == "auto":
        source = "validation-masks" if tuning.pooled is not None else "otsu" if tuning.histogram.any() else "fixed"
    try:
        return threshold_from(source, settings, tuning, scored)
    except ValueError as error:
        raise ValueError(f"threshold: {source}, but {error}") from error


def candidates(settings: Evaluate, tuning: Tuning, scored: Mapping[str, Counts]) -> dict[str, Threshold | str]:
    """Source -> the threshold it would give, or the reason why it gives none."""
    found: dict[str, Threshold | str] = {}
    for source in settings.compare_thresholds:
        try:
            found[_NAMES.get(source, source)] = threshold_from(source, settings, tuning, scored)
        except ValueError as error:
            found[_NAMES.get(source, source)] = str(error)
    return found
