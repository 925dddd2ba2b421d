"""Badges in words: what each kind is about, and which values a reader has to be careful with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from wsol.reporting.table import Row

KINDS = {
    "supervision": (
        "training",
        "What training was told. Labels of whole slides or images are weak; masks are not. Shuffled labels are a control: such a "
        "model must not localize.",
    ),
    "checkpoint": (
        "checkpoint",
        "What picked the epoch: labels of the validation split (B-CL), masks (B-LOC), nothing (last), or a label-free rule.",
    ),
    "threshold": (
        "threshold",
        "Where the threshold of Dice, precision and flagged area comes from. A test oracle is a bound, not a result. Conformal: "
        "it bounds the flagged area of negative patients like those it was calibrated on, of others it says nothing.",
    ),
    "map_class": (
        "map of",
        "Whose evidence is drawn: the declared positive class needs no label at test time, the ground truth does.",
    ),
    "scale": (
        "scale",
        "How raw maps became scores in [0, 1]. Min-max per image or per slide marks something even where nothing is.",
    ),
    "split_unit": (
        "split by",
        "What the split keeps on one side. Splits finer than the patient let a patient be trained on and tested on.",
    ),
    "drawn": ("drawn", "Whether the network saw the whole image at once or tile by tile."),
    "as_published": (
        "as published",
        "A known defect of the published code that the number was made with on purpose, to show what it does. It is no result "
        "and is not ranked among those.",
    ),
    "code": ("code", "Version of the code that made the number."),
}
"""Badge -> (its short title, its explanation)."""


CAREFUL = {
    ("map_class", "ground truth"),
    ("scale", "per-image min-max"),
    ("scale", "per slide"),
    ("split_unit", "image"),
    ("split_unit", "patch"),
}
"""Badges that a reader has to be warned by: (kind, value)."""

CAREFUL_PARTS = (
    ("threshold", "oracle"),
    ("threshold", "per-image otsu"),
    ("threshold", "prevalence-matched"),
    ("threshold", "conformal"),
    ("supervision", "shuffled"),
    ("checkpoint", "masks"),
    ("as_published", ""),
    ("code", ".dirty"),
    ("code", "unknown"),
)
"""Parts of badges that do so: (kind, part of the value)."""


def careful(name: str, value: str) -> bool:
    """Whether a reader of the number should be warned by this badge."""
    return value == "unknown" or (name, value) in CAREFUL or any(name == n and part in value for n, part in CAREFUL_PARTS)


def common(table: Sequence[Row]) -> dict[str, str]:
    """For each badge, what at least half of the trained rows say: shown once above the table, and rows that differ say so."""
    trained = [r for r in table if not r.floor] or list(table)
    shared = {}
    for name in KINDS:
        said = Counter(tuple(r.badges.get(name, [])) for r in trained)
        words, rows = said.most_common(1)[0]
        if len(words) == 1 and 2 * rows >= len(trained) and name != "as_published":  # a row without it could not say so
            shared[name] = words[0]
    return shared


def chips(row: Row, shared: Mapping[str, str]) -> list[dict[str, str]]:
    """The badges of a row that differ from the shared ones; several values over the runs make one chip that says so.

    A floor does not repeat what it has none of.
    """
    found = []
    for name, (title, words) in KINDS.items():
        values = row.badges.get(name, [])
        if not values or values == [shared.get(name)] or (row.floor and values == ["none"]):
            continue
        mark = "careful" if len(values) > 1 or any(careful(name, v) for v in values) else ""
        found.append({"title": title, "value": " / ".join(values), "words": words, "mark": mark})
    return found


def shared_chips(shared: Mapping[str, str]) -> list[dict[str, str]]:
    """The chips above a table, for what its rows share."""
    return [
        {"title": KINDS[name][0], "value": value, "words": KINDS[name][1], "mark": "careful" if careful(name, value) else ""}
        for name, value in shared.items()
    ]
