"""Class decisions of the model that drew the maps: at sample, slide and patient level, with calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

    from wsol.cli.scoring import Maps
    from wsol.data import Manifest


def clusters(rows: pd.DataFrame) -> list[str]:
    """The patient of each sample; the slide where no patient is known ("" if neither is)."""
    return list(rows["patient"].where(rows["patient"] != "", rows["slide"]))


def logits_of(rows: pd.DataFrame, maps: Maps, listing: Manifest) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
    """(rows that were classified, their logits (n, k)); samples without logits (no tissue) are left out.

    Where a sample may have several labels, each class is a question of its own, and this one is of the positive class: labels 0
    and 1, logits (0, l), whose softmax is the sigmoid of l.
    """
    found = {sample: reader.logits(sample) for sample, reader in maps.readers() if reader.has_logits(sample)}
    kept = rows[rows["sample"].isin(found)]
    logits = np.array([found[s] for s in kept["sample"]], np.float64)
    if not listing.multilabel or kept.empty:
        return kept, logits
    positive = listing.positive_index()
    asked = kept.assign(label=(kept["label"] == positive).astype(np.int64))
    return asked, np.stack([np.zeros(len(logits)), logits[:, positive]], 1)


def temperature(rows: pd.DataFrame, maps: Maps, listing: Manifest) -> float | None:
    """The temperature that fits the logits of validation samples to their labels; None without logits."""
    from wsol.evaluation import fit_temperature

    kept, logits = logits_of(rows, maps, listing)
    return fit_temperature(logits, kept["label"].to_numpy()) if len(kept) else None


def classification(
    rows: pd.DataFrame, maps: Maps, listing: Manifest, replicates: int, fitted: float | None
) -> dict[str, Any] | None:
    """Accuracy with an interval by patient, and at every level AUC, calibration and confusion; None without logits.

    Args:
        rows: samples that are scored.
        maps: their maps, which hold the logits.
        listing: names the positive class.
        replicates: bootstrap replicates.
        fitted: the temperature of the validation labels, which is reported and not applied.
    """
    from wsol.evaluation import classify_at_levels, reliability, softmax, summarize_classification

    kept, logits = logits_of(rows, maps, listing)
    if kept.empty:
        return None
    probabilities, labels, patients = softmax(logits), kept["label"].to_numpy(), clusters(kept)
    levels = {"sample": list(kept["sample"]), "slide": list(kept["slide"])}
    if not (kept["patient"] == "").any():
        levels["patient"] = list(kept["patient"])
    overall = summarize_classification(
        labels, probabilities.argmax(1), patients, generator=np.random.default_rng(0), replicates=replicates
    )
    at_levels = classify_at_levels(
        probabilities, labels, levels, patients, generator=np.random.default_rng(0), replicates=replicates,
        positive=1 if listing.multilabel else listing.positive_index(),
        how="max",  # a patient is positive iff any image is: the decision follows the same rule
    )  # fmt: skip
    return {
        **overall,
        **({"classes": [f"not {listing.positive[0]}", listing.positive[0]]} if listing.multilabel else {}),
        "levels": at_levels,
        "reliability": reliability(probabilities, labels).to_dict(),
        "temperature": fitted,
    }
