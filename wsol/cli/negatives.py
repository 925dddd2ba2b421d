"""Whether a study has the negative validation patients that `threshold: conformal` asks for; seen before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from wsol.cli.config import Config


def require_negatives(study: Config, rows: Sequence[Mapping[str, Any]], positive: Collection[int] | None) -> None:
    """Raise ValueError unless the threshold of a study is no conformal one, or every fold has enough patients for it.

    Args:
        study: whose folds and bound.
        rows: of the manifest, with fold, role, label, patient.
        positive: labels of positive classes; None where a label does not say that there is nothing to find.
    """
    if study.evaluate.threshold != "conformal":
        return
    from wsol.evaluation import patients_needed

    how = study.evaluate.conformal
    needed = patients_needed(how.level, how.bound, how.confidence)
    held: dict[int, list[str]] = {fold: [] for fold in study.folds}
    for row in rows:
        if row["role"] == "valcl" and int(row["fold"]) in held and positive is not None and int(row["label"]) not in positive:
            held[int(row["fold"])].append(str(row["patient"]))
    if unknown := sum(patient == "" for patients in held.values() for patient in patients):
        raise ValueError(
            f"conformal promises something about patients, and {unknown} negative validation samples name none; fill in the "
            "patient, or take threshold: auto"
        )
    if few := {fold: len(set(patients)) for fold, patients in held.items() if len(set(patients)) < needed}:
        have = ", ".join(f"fold {fold} has {count}" for fold, count in few.items())
        raise ValueError(
            f"conformal at level {how.level:g} ({how.bound}) needs at least {needed} negative validation patients, {have}; add "
            "patients, lower evaluate.conformal.level, or take threshold: auto"
        )
