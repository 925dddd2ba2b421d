"""Glass and ink: slides, tissue, tile grids, stain, color floors, heat-map files.

Speaks numpy RGB uint8 (H, W, 3), `Box` in level-0 px and micrometers per px (`mpp`). Slides say (x, y) and width, height; arrays
say (H, W); only this room crosses over. Names resolve late: importing the room imports no reader.
"""

from __future__ import annotations

from wsol._names import lazy

_WHERE = {
    "Slide": "slide",
    "SlideError": "reader",
    "Box": "slide",
    "Piece": "pieces",
    "Layout": "pieces",
    "write_mosaic": "mosaic",
    "Vectors": "vectors",
    "read_vectors": "vectors",
    "write_vectors": "vectors",
    "open_slide": "slide",
    "tissue_mask": "tissue",
    "pen_mask": "ink",
    "aligned_side": "tiling",
    "Annotations": "annotations",
    "AnnotatedRegion": "annotations",
    "open_region": "annotations",
    "tiled_mask": "mask_region",
    "read_annotations": "annotations",
    "inside": "polygons",
    "grid": "tiling",
    "Block": "field",
    "Field": "field",
    "blocks": "field",
    "fewest_px": "field",
    "Limits": "qc",
    "Overview": "qc",
    "overview": "qc",
    "quality_png": "qc_picture",
    "TileStatus": "tiles",
    "on_lattice": "tiles",
    "tile_table": "tiles",
    "StainJitter": "stain",
    "apply_od_matrix": "stain",
    "blue_minus_red": "stain",
    "hematoxylin": "stain",
    "rgb_to_od": "stain",
    "stain_matrix": "stain",
    "PixelRegression": "floors",
    "floor_map": "floors",
    "overlay_png": "heatmap",
    "Surface": "surface",
    "Region": "contours",
    "score_regions": "contours",
    "geojson": "contours",
    "region_csv": "contours",
    "write_ome_tiff": "ometiff",
}

FLOORS = {
    "all-ones": "floors:AllOnes",
    "random": "floors:Random",
    "hematoxylin": "floors:Hematoxylin",
    "blue-minus-red": "floors:BlueMinusRed",
    "pixel-regression": "floors:FittedRegression",
}
"""Maps that need no network: what every localizer has to beat. Name -> class with `map(rgb, mpp, generator, model)`."""

__all__ = ["FLOORS", *_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
