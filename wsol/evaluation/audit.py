"""The protocol auditor: the field's known sins as checks on plain rows.

Sources: what went wrong in the code and the splits of the survey (Rony et al., 2023) and its followers: thresholds chosen on test
masks, mirrored thresholds, folds that cut through slides and patients, maps of the true class, missing masks taken as empty. The
severities are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from wsol.evaluation import audit_maps, audit_masks, audit_published, audit_records, audit_splits, audit_thresholds
from wsol.evaluation.findings import Audit, CannotTell, Finding, worst_first
from wsol.evaluation.study import Study


class Check(NamedTuple):
    """One question: in words, which parts of a `Study` it needs, and who answers it."""

    question: str
    needs: tuple[str, ...]
    find: Callable[[Study], list[Finding]]


_MISSING = {
    "claims": "no scores are given",
    "maps": "no maps are given",
    "masks": "no table of masks is given",
    "looks": "no ledger of looks at the test set is given",
}

CHECKS: dict[str, Check] = {
    "shared-samples": Check("Is a sample on two sides of the split?", (), audit_splits.shared_samples),
    "shared-files": Check("Is one image listed under two names?", (), audit_splits.shared_files),
    "shared-patients": Check("Is a patient on two sides of the split?", (), audit_splits.shared_patients),
    "shared-slides": Check("Is a slide on two sides of the split?", (), audit_splits.shared_slides),
    "known-patients": Check("Is every patient known?", (), audit_splits.known_patients),
    "training-masks": Check("Are validation masks those of training samples?", (), audit_splits.training_masks),
    "validation-masks": Check("Do the same samples choose checkpoint and threshold?", (), audit_splits.validation_masks),
    "split-unit": Check("Does the split keep apart what it claims to?", (), audit_splits.split_unit),
    "mask-files": Check("Is a missing mask read as empty?", ("masks",), audit_masks.mask_files),
    "empty-masks": Check("Is the mask of a positive sample empty?", ("masks",), audit_masks.empty_masks),
    "negative-masks": Check("Has a negative sample foreground?", ("masks",), audit_masks.negative_masks),
    "mask-ids": Check("Are the ids of a mask read as what they mean?", ("masks",), audit_masks.mask_ids),
    "gray-levels": Check("Are masks saved as ids 0 and 1?", ("masks",), audit_masks.gray_levels),
    "full-masks": Check("Is a mask foreground everywhere?", ("masks",), audit_masks.full_masks),
    "unscored-samples": Check("Are samples left out of the numbers?", ("claims",), audit_masks.unscored_samples),
    "threshold-source": Check("Have test masks chosen the threshold?", ("claims",), audit_thresholds.threshold_source),
    "oracle-threshold": Check("Is the threshold the test set's best?", ("claims",), audit_thresholds.oracle_threshold),
    "mirrored-threshold": Check("Is the threshold mirrored?", ("claims",), audit_thresholds.mirrored_threshold),
    "fitted-on-scored": Check("Is the split scored that chose?", ("claims",), audit_thresholds.fitted_on_scored),
    "validation-counts": Check("Is there the validation it claims?", ("claims",), audit_thresholds.validation_counts),
    "checkpoint-source": Check("What chose the checkpoint?", ("claims",), audit_thresholds.checkpoint_source),
    "map-class": Check("Are maps those of the true class?", ("maps",), audit_maps.map_class),
    "normal-class-maps": Check("Are normals scored by normal-class maps?", ("maps",), audit_maps.normal_class_maps),
    "broken-maps": Check("Can every map be scored?", ("maps",), audit_maps.broken_maps),
    "constant-maps": Check("Are maps constant?", ("maps",), audit_maps.constant_maps),
    "per-image-range": Check("Is every map stretched to [0, 1]?", ("maps",), audit_maps.per_image_range),
    "identical-maps": Check("Are maps the same under different names?", ("maps",), audit_maps.identical_maps),
    "trivial-baselines": Check("Are the floors scored?", ("claims",), audit_records.trivial_baselines),
    "prevalence": Check("Is the chance level told?", ("claims",), audit_records.prevalence),
    "supervision": Check("Did training see what the badge says?", ("claims",), audit_records.supervision),
    "as-published": Check("Is a known defect reproduced?", ("claims",), audit_published.as_published),
    "ledger": Check("Is every look at the test set recorded?", ("claims", "looks"), audit_records.ledger),
    "code-versions": Check("Are the numbers of one version?", ("claims",), audit_records.code_versions),
    "mixed-inputs": Check("Are the numbers of one manifest?", ("claims",), audit_records.mixed_inputs),
}
"""What is checked: name -> the question, what it needs to know, and who answers it."""


def examine(study: Study) -> Audit:
    """Make every check that the study allows.

    Args:
        study: what was gathered from the files; parts that are None leave their checks unmade, which is not passed.

    Raises:
        ValueError: there are no samples.
    """
    if not study.samples:
        raise ValueError("an audit needs samples with their roles, got none; give a manifest, or a sheet with the column split")
    found: list[Finding] = []
    checked: list[str] = []
    unchecked: dict[str, str] = {}
    for name, check in CHECKS.items():
        if absent := [need for need in check.needs if getattr(study, need) is None]:
            unchecked[name] = _MISSING[absent[0]]
            continue
        try:
            found += check.find(study)
        except CannotTell as reason:
            unchecked[name] = str(reason)
        else:
            checked.append(name)
    return Audit(worst_first(found), tuple(checked), unchecked)
