"""Maps that a network was trained to draw."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wsol.cams.base import Cam, Evidence
from wsol.models import Localizer


class Masker(Cam):
    """The mask of the head `masker`, in [0, 1]: what its trained decoder keeps of the image for the target; one forward.

    It is at the resolution of the second stage (stride 4), and reads all stages from there on.
    """

    needs_gradient = False
    local = False  # each cell is one, but a decoder reaches far
    rectified = False
    paper = "Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NIPS 2017"

    def __init__(self, *, confidence: float | None = None) -> None:
        """`confidence` is the logit that the gate takes off, the head's own (6) without it: the lower, the fuller the mask."""
        self.confidence = confidence

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Ask the head."""
        head: Any = net.head
        if not callable(getattr(type(head), "mask", None)):
            raise ValueError(
                f"method 'masker' needs a net that was trained with head 'masker' and strategy 'masker'; {type(head).__name__} "
                "draws no masks: use a method that needs no training, such as 'rise' or 'grad-cam'"
            )
        mask: Tensor = head.mask(evidence.features, evidence.targets, self.confidence)
        return mask
