"""Samples and where they stand: manifests without masks, masks apart, splits by patient, batches, and maps on disk.

A source lists samples as a `Dataset`; `write_manifest` parts it into a manifest, which training and localization read, and masks,
which only evaluation opens. Names resolve late: importing the room imports neither torch nor pandas.
"""

from __future__ import annotations

from wsol._names import lazy

_WHERE = {
    "Dataset": "manifest",
    "Manifest": "manifest",
    "read_manifest": "manifest",
    "write_manifest": "manifest",
    "masks_table": "manifest",
    "samples_table": "manifest",
    "DrawnMask": "masks",
    "Masks": "masks",
    "POLYGONS": "masks",
    "read_masks": "masks",
    "image_shape": "pixels",
    "read_image": "pixels",
    "check_splits": "splits",
    "grouped_split": "splits",
    "require_two_classes": "splits",
    "Batch": "batches",
    "EncodedBatch": "batches",
    "MaskedBatch": "batches",
    "BagBatches": "tiles",
    "TileBatches": "labeled_tiles",
    "label_tiles": "tile_labels",
    "draw_tiles": "tile_labels",
    "ImageBatches": "tiles",
    "PixelCache": "feed",
    "EncodedBags": "embeddings",
    "VectorBags": "embeddings",
    "encoded_tiles": "embeddings",
    "store_embeddings": "embeddings",
    "eval_transform": "transforms",
    "to_tensor": "transforms",
    "train_transform": "transforms",
    "MapReader": "mapstore",
    "MapWriter": "mapstore",
    "StoredMap": "mapstore",
    "COLLECTIONS": "downloads",
    "download": "downloads",
    "read_foreign_map": "foreign",
    "register": "foreign",
}

SOURCES = {
    "phantom": "sources:phantom",
    "glas": "sources:glas",
    "glas-patient": "sources:glas_patient",
    "camelyon16": "sources:camelyon16",
    "images": "sources:images",
    "slides": "sources:slides",
    "tiles": "sources:tiles",
}
"""Where samples come from. Name -> module with `dataset(**options) -> Dataset`; slides: `listing(**options)` too, its rows."""

KINDS = {
    "phantom": "slides", "glas": "images", "glas-patient": "images", "camelyon16": "slides", "images": "images",
    "slides": "slides", "tiles": "slides",
}  # fmt: skip
"""Whether the samples of a source are whole slides, cut into tiles, or images, taken as they are."""

__all__ = ["KINDS", "SOURCES", *_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
