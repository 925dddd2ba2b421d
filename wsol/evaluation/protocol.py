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
    "supervision": ("slide label", "image label", "tile label from annotation", "masks (n)", "none"),
    "checkpoint": ("label-free", "validation labels (B-CL)", "masks-n", "last", "none"),
    "threshold": ("validation masks (n)", "fixed", "label-free (otsu)", "test oracle"),
    "map_class": ("declared positive", "predicted", "ground truth", "none"),
    "scale": ("raw", "probability", "fitted on validation", "per-image min-max"),
    "split_unit": ("patient", "slide", "image", "patch"),
    "drawn": ("whole image", "per tile"),
}
"""What each badge may say; a lone `n` stands for a number of masks, 1 or more. `code` may be any version."""

_SAID: dict[str, dict[str, str]] = {
    "supervision": {"none": "not trained", "masks (n)": "trained on {n} masks", "": "trained on {value}s"},
    "checkpoint": {
        "label-free": "checkpoint chosen without labels",
        "validation labels (B-CL)": "checkpoint chosen on validation labels (B-CL)",
        "masks-n": "checkpoint chosen on {n} validation masks (B-LOC)",
        "last": "last checkpoint",
        "none": "no checkpoint",
    },
    "threshold": {
        "validation masks (n)": "threshold from {n} validation masks",
        "fixed": "fixed threshold",
        "label-free (otsu)": "threshold without masks (Otsu)",
        "test oracle": "threshold chosen ON THE TEST MASKS (oracle)",
    },
    "map_class": {"none": "map of no class", "": "map of the {value} class"},
    "scale": {
        "raw": "raw scores",
        "probability": "scores are probabilities",
        "fitted on validation": "scores scaled by a range fitted on validation maps",
        "per-image min-max": "scores stretched to [0, 1] in every image",
    },
    "split_unit": {"": "split by {value}"},
    "drawn": {"whole image": "drawn on whole images", "per tile": "drawn tile by tile"},
}


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

    def __post_init__(self) -> None:
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if not isinstance(value, str) or _pattern(value) not in allowed or re.search(r"(\(n\)|-n)$", value):
                raise ValueError(closest(f"{name} badge", str(value), allowed))
        if not isinstance(self.code, str) or not self.code:
            raise ValueError(f"the code badge must name a version, got {self.code!r}")

    def to_dict(self) -> dict[str, str]:
        """All badges by name, for a JSON file."""
        return asdict(self)

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
        if missing := [name for name in known if name not in badges]:
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
        line = "; ".join([*parts, f"code {self.code}"]) + "."
        return line[0].upper() + line[1:]
