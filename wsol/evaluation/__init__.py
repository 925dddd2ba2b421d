"""Map + mask -> number with an interval: pixel metrics over all thresholds, thresholds, classification, bootstrap, badges.

Arrays in, numbers out: no files, no networks. Conventions of the whole room: scores are float32 in [0, 1]; a pixel is positive
iff score >= threshold; fractions, never percent; an undefined number is NaN, never 0. Names resolve late: importing the room
costs nothing.
"""

from __future__ import annotations

from wsol._names import lazy

_WHERE = {
    "Confusion": "outcomes",
    "Curve": "outcomes",
    "PixelCounts": "counts",
    "average_precision": "counts",
    "roc_auc": "counts",
    "PixelCurve": "pixels",
    "PixelResult": "pixels",
    "count_pixels": "pixels",
    "pixel_average_precision": "pixels",
    "score_histogram": "pixels",
    "Plateau": "thresholds",
    "Threshold": "thresholds",
    "best_threshold": "thresholds",
    "otsu": "labelfree",
    "per_image_otsu": "labelfree",
    "prevalence_matched": "labelfree",
    "conformal_threshold": "conformal",
    "patients_needed": "conformal",
    "plateau": "thresholds",
    "accuracy": "classification",
    "auc": "classification",
    "balanced_accuracy": "classification",
    "confusion": "classification",
    "Interval": "intervals",
    "bootstrap": "intervals",
    "bootstrap_accuracy": "intervals",
    "percentile_interval": "intervals",
    "Difference": "paired",
    "compare": "paired",
    "paired_difference": "paired",
    "benjamini_hochberg": "multiplicity",
    "holm": "multiplicity",
    "ratio": "intervals",
    "resampled_sums": "intervals",
    "Box": "boxes",
    "BoxAccuracy": "boxes",
    "BoxResult": "boxes",
    "best_overlaps": "boxes",
    "boxes_of": "boxes",
    "resized_box": "boxes",
    "LocalizationError": "localization",
    "localization_error": "localization",
    "Lesion": "lesions",
    "PredictedRegions": "lesions",
    "SizeBin": "lesions",
    "lesion_recall": "lesions",
    "lesions": "lesions",
    "predicted_regions": "lesions",
    "recall_by_size": "lesions",
    "Badges": "protocol",
    "flagged_area": "metrics",
    "fit_range": "scales",
    "pixel_intervals": "summary",
    "summarize": "summary",
    "summarize_classification": "summary",
}

METRICS = {
    "pxap": "metrics:pxap",
    "exact-ap": "metrics:exact_ap",
    "normalized-ap": "metrics:normalized_ap",
    "roc-auc": "metrics:roc_auc",
    "exact-auc": "metrics:exact_auc",
    "prevalence": "metrics:prevalence",
    "dice": "metrics:dice",
    "iou": "metrics:iou",
    "precision": "metrics:precision",
    "recall": "metrics:recall",
    "flagged-area": "metrics:flagged_area",
    "dice-background": "metrics:dice_background",
    "iou-background": "metrics:iou_background",
    "miou": "metrics:miou",
    "pixel-accuracy": "metrics:pixel_accuracy",
    "specificity": "metrics:specificity",
    "false-positive-rate": "metrics:false_positive_rate",
    "false-negative-rate": "metrics:false_negative_rate",
    "max-box-acc": "boxes:max_box_acc",
    "max-box-acc-v2": "boxes:max_box_acc_v2",
    "lesion-recall": "lesions:lesion_recall",
    "accuracy": "classification:accuracy",
    "balanced-accuracy": "classification:balanced_accuracy",
    "auc": "classification:auc",
}
"""What can be measured: name -> the object that measures it."""

__all__ = ["METRICS", *_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
