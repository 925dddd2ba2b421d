"""The badges of a number: under which conditions it was made. Recorded by the code that opened the files, not by the config.

The survey's Dice is (test oracle threshold, B-LOC checkpoint, map of the ground-truth class, patch-level split): four choices
that a user without masks cannot make. A badge says each choice aloud.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from wsol._names import closest

ALLOWED: dict[str, tuple[str, ...]] = {
    "supervision": (
        "slide label",
        "slide label (inherited by tiles)",
        "image label",
        "tile label from annotation",
        "masks (n)",
        "shuffled slide label",
        "shuffled image label",
        "none",
        "unknown",
    ),
    "checkpoint": ("label-free", "validation labels (B-CL)", "masks-n", "last", "none", "unknown"),
    "threshold": (
        "validation masks (n)",
        "fixed",
        "label-free (otsu)",
        "label-free (per-image otsu)",
        "prevalence-matched (given)",
        "prevalence-matched (n masks)",
        "conformal (n negative patients)",
        "test oracle",
    ),
    "map_class": ("declared positive", "predicted", "ground truth", "none", "unknown"),
    "scale": (
        "raw",
        "none",
        "probability",
        "temperature on validation labels",
        "fitted on validation",
        "per slide",
        "per-image min-max",
    ),
    "split_unit": ("patient", "slide", "image", "patch", "unknown"),
    "drawn": ("whole image", "per tile", "unknown"),
}
"""What each badge may say; a lone `n` stands for a number of masks or patients, 1 or more. `code` may be any version.

"unknown" is for maps that another tool made: what is not known is said, not guessed. A threshold is never unknown, for it is
always this package that applies it.
"""

DEFECTS = ("mirrored-threshold", "test-threshold", "weight-row", "background-seeds", "wildcat-min")
"""Defects of the published code that can be reproduced on purpose: what the badge `as_published` may name, with commas."""

_SAID: dict[str, dict[str, str]] = {
    "supervision": {
        "none": "not trained",
        "unknown": "trained in an unknown way",
        "masks (n)": "trained on {n} masks",
        "slide label (inherited by tiles)": "trained on slide labels that every tile inherits",
        "": "trained on {value}s",
    },
    "checkpoint": {
        "label-free": "checkpoint chosen without labels",
        "validation labels (B-CL)": "checkpoint chosen on validation labels (B-CL)",
        "masks-n": "checkpoint chosen on {n} validation masks (B-LOC)",
        "last": "last checkpoint",
        "none": "no checkpoint",
        "unknown": "checkpoint chosen in an unknown way",
    },
    "threshold": {
        "validation masks (n)": "threshold from {n} validation masks",
        "fixed": "fixed threshold",
        "label-free (otsu)": "threshold without masks (Otsu)",
        "label-free (per-image otsu)": "threshold without masks, of each image its own (Otsu)",
        "prevalence-matched (given)": "threshold that flags a given share of all pixels",
        "prevalence-matched (n masks)": "threshold that flags the share of foreground in {n} validation masks",
        "conformal (n negative patients)": "threshold that bounds the flagged area of negative patients, from {n} of them",
        "test oracle": "threshold chosen ON THE TEST MASKS (oracle)",
    },
    "map_class": {"none": "map of no class", "unknown": "map of an unknown class", "": "map of the {value} class"},
    "scale": {
        "raw": "raw scores",
        "none": "maps taken as scores as they are",
        "probability": "scores are probabilities",
        "temperature on validation labels": "scores are probabilities with a temperature fitted on validation labels",
        "fitted on validation": "scores scaled by a range fitted on validation maps",
        "per slide": "scores scaled by the range of their slide",
        "per-image min-max": "scores stretched to [0, 1] in every image",
    },
    "split_unit": {"unknown": "split by an unknown unit", "": "split by {value}"},
    "drawn": {"whole image": "drawn on whole images", "per tile": "drawn tile by tile", "unknown": "drawn in an unknown way"},
}

_PLACEHOLDER = re.compile(r"(?<![A-Za-z0-9])n(?![A-Za-z0-9])")


def _pattern(value: str) -> str:
    """`value` with its numbers replaced by the `n` of the allowed forms."""
    return re.sub(r"(?<![A-Za-z0-9])[1-9][0-9]*(?![A-Za-z0-9])", "n", value)


@dataclass(frozen=True)
class Badges:
    """The conditions of one number; see `ALLOWED` for what each may say.

    Args:
        supervision: what training saw.
        checkpoint: what chose the checkpoint.
        threshold: what chose the threshold (`Threshold.badge`).
        map_class: whose map is scored.
        scale: how raw maps became scores.
        split_unit: what the split keeps together.
        drawn: whether a map saw its whole image.
        code: version of the code; "mixed" versions are to be said here too.
        as_published: of `DEFECTS`, with commas: those that the number was made with on purpose; "" for none, as it should be.

    Raises:
        ValueError: a value that is not allowed; the message names the nearest one.
    """

    supervision: str
    checkpoint: str
    threshold: str
    map_class: str
    scale: str
    split_unit: str
    drawn: str
    code: str
    as_published: str = ""

    def __post_init__(self) -> None:
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if not isinstance(value, str) or _pattern(value) not in allowed or _PLACEHOLDER.search(value):
                raise ValueError(closest(f"{name} badge", str(value), allowed))
        if not isinstance(self.code, str) or not self.code:
            raise ValueError(f"the code badge must name a version, got {self.code!r}")
        for name in self.as_published.split(", ") if self.as_published else ():
            if name not in DEFECTS:
                raise ValueError(closest("as_published badge", name, DEFECTS))

    def to_dict(self) -> dict[str, str]:
        """All badges by name, for a JSON file; `as_published` only where there is a defect."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, badges: Mapping[str, Any]) -> Badges:
        """What `to_dict` wrote.

        Raises:
            ValueError: a badge is missing or unknown.
        """
        known = [f.name for f in fields(cls)]
        for name in badges:
            if name not in known:
                raise ValueError(closest("badge", name, known))
        if missing := [name for name in known if name not in badges and name != "as_published"]:
            raise ValueError(f"badges missing: {', '.join(missing)}")
        return cls(**badges)

    def sentence(self) -> str:
        """The badges as one line a reader understands."""
        parts = []
        for name, said in _SAID.items():
            value = getattr(self, name)
            number = re.search(r"(?<![A-Za-z0-9])[1-9][0-9]*(?![A-Za-z0-9])", value)
            text = said.get(_pattern(value), said.get("", ""))
            parts.append(text.format(value=value, n=number.group() if number else ""))
        if self.as_published:
            parts.insert(0, f"AS PUBLISHED, with a known defect: {self.as_published}")
        line = "; ".join([*parts, f"code {self.code}"]) + "."
        return line[0].upper() + line[1:]
