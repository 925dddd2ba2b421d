"""Weakly-supervised localization for histology.

Axis letters, fixed once for the whole package: `b` batch, `k` class, `c` channel, `H W` pixels, `h w` feature cells.
Slides speak (x, y) and width, height; arrays speak (H, W); only `wsol.slides` crosses over. Importing `wsol` imports no torch.
"""

__version__ = "0.1.0"
