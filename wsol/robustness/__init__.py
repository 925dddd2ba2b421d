"""A net or an image made worse by a known amount: what must change with it, and by how much it does.

Here now: the sanity checks of saliency maps, in which weights are randomized block by block. Works on any `nn.Module`; names
resolve late, importing the room imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsol._names import lazy

if TYPE_CHECKING:
    from wsol.robustness.controls import edge_maps as edge_maps
    from wsol.robustness.controls import principal_maps as principal_maps
    from wsol.robustness.sanity import SanityCurve as SanityCurve
    from wsol.robustness.sanity import blocks as blocks
    from wsol.robustness.sanity import cascading as cascading
    from wsol.robustness.sanity import compare_maps as compare_maps
    from wsol.robustness.sanity import independent as independent
    from wsol.robustness.sanity import sanity_curve as sanity_curve
    from wsol.robustness.similarity import hog_correlation as hog_correlation
    from wsol.robustness.similarity import spearman as spearman
    from wsol.robustness.similarity import structural_similarity as structural_similarity

_WHERE = {
    "SanityCurve": "sanity",
    "blocks": "sanity",
    "cascading": "sanity",
    "compare_maps": "sanity",
    "edge_maps": "controls",
    "hog_correlation": "similarity",
    "independent": "sanity",
    "principal_maps": "controls",
    "sanity_curve": "sanity",
    "spearman": "similarity",
    "structural_similarity": "similarity",
}

ORDERS = {"cascading": "sanity:cascading", "independent": "sanity:independent"}
"""In which order weights are randomized: name -> function of a net and a generator that yields (block, randomized copy)."""

__all__ = ["ORDERS", *_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
