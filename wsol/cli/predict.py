"""`wsol predict`: one slide or one image goes through one model, without a manifest and without the workflow."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol._names import closest
from wsol.cli.cohort import only_file
from wsol.cli.config import Heatmap, Tile, parse
from wsol.cli.files import write_json
from wsol.cli.frozen import freeze
from wsol.cli.scoring import BADGE, Scale, score

if TYPE_CHECKING:
    from wsol.cli.heatmap import Look
    from wsol.data import StoredMap

PLAIN = (".png", ".jpg", ".jpeg", ".bmp")
"""Files that are taken for images at the model's own resolution; all others are slides, cut into tiles."""

LONGEST = 2048
"""Longest side in px at which the flagged area is measured."""


@dataclass(frozen=True)
class Asked:
    """What is drawn of the file.

    Attributes:
        method: as `localize` wants it: id, method, options.
        classes: of the model.
        target: name of the class whose map it is; None for the predicted one.
        scale: from raw values to scores; None for the map's own range, where no evaluation fixed one.
        threshold: on the scores; None where no evaluation fixed one.
        source: of the threshold.
        drawn_by: settings of the maps that were evaluated, of which those that are drawn now are the same.
    """

    method: dict[str, Any]
    classes: list[str]
    target: str | None
    scale: Scale | None = None
    threshold: float | None = None
    source: str = ""
    drawn_by: dict[str, Any] | None = None


@dataclass(frozen=True)
class One:
    """The one file, and where its results and the work on it go."""

    file: Path
    name: str
    kind: str
    mpp: float | None
    model: Path
    meta: dict[str, Any]
    folder: Path
    work: Path

    @property
    def manifest(self) -> Path:
        """Of this one sample."""
        return self.work / "manifest.parquet"

    @property
    def several(self) -> bool:
        """Whether a sample may have several of the classes."""
        return self.meta.get("task") == "multilabel"


def predict(
    file: Path,
    *,
    model: Path,
    out: Path | None = None,
    scores: Path | None = None,
    method: str | None = None,
    target: str | None = None,
    kind: str | None = None,
    mpp: float | None = None,
    memory_mb: int = 2048,
    device: str = "auto",
    threads: int = 1,
) -> dict[str, Any]:
    """Class probabilities and a heat map of one file.

    Writes below `out` the overlay (.png), the scores as OME-TIFF, with `scores` also regions (.geojson, slides: .csv), and
    `prediction.json`, the content of which is returned.

    Args:
        file: a slide, a plain image, or a folder with one slide in it, as a DICOM pyramid is.
        model: checkpoint (.safetensors).
        out: folder; `predict/NAME` by default.
        scores: scores.json of an evaluation of this model, whose scale and threshold are kept. Without it the colors span the
            map's own range: they say where, not how much, and nothing is outlined.
        method: id of the map in `scores`, by default the only one; without `scores` a method of `wsol list cams`, by default cam.
        target: class whose map is drawn, without `scores`; by default the declared positive one, else the second of two, else
            the predicted one.
        kind: "slides" or "images"; by default by the ending of the file's name.
        mpp: um per px of the file, where it does not say or says it wrong.
        memory_mb: as localize.memory_mb.
        device: auto, cpu, or cuda[:n].
        threads: CPU threads.

    Raises:
        FileNotFoundError: no such file or checkpoint.
        ValueError: model, scores, method or class do not go together.
        RuntimeError: the slide cannot be read, or holds no tissue.
    """
    from wsol.models import checkpoint_recipe

    if not file.exists():
        raise FileNotFoundError(f"no slide and no image at {file}")
    if kind not in (None, "slides", "images"):
        raise ValueError(closest("kind", str(kind), ("slides", "images")))
    if file.is_dir():
        file = only_file(file)
    recipe, meta = checkpoint_recipe(model)
    if str(recipe["backbone"]).startswith("stored:"):
        raise ValueError(f"{model} reads features of another encoder, not pixels; use the study (docs/how-to/bring-your-data.md)")
    asked = _evaluated(scores, method, target, model) if scores else _asked(meta, method, target)
    name = re.sub(r"[^A-Za-z0-9_.+-]", "-", file.stem).lstrip("._+-") or "slide"
    with tempfile.TemporaryDirectory(prefix="wsol-predict-") as work:
        one = One(
            file.absolute(), name, kind or ("images" if file.suffix.lower() in PLAIN and mpp is None else "slides"), mpp, model,
            meta, out or Path("predict") / name, Path(work),
        )  # fmt: skip
        _write_manifest(one, asked)
        how = {"methods": [asked.method], "map_class": "positive" if asked.target else "predicted", "device": device}
        return _drawn(one, asked, {**how, "memory_mb": memory_mb, **(asked.drawn_by or {})}, threads)


def _evaluated(scores: Path, method: str | None, target: str | None, model: Path) -> Asked:
    """What an evaluation fixed."""
    if target is not None:
        raise ValueError("--class: the scale and the threshold of --scores belong to the class that was evaluated; leave it out")
    fixed = freeze(scores, method, model)
    if (whose := fixed.facts["badges"]["map_class"]) == "ground truth":
        raise ValueError(f"{scores} is of maps of the true class, which is not known of a new slide; give --class, not --scores")
    by = fixed.scores["drawn_by"]
    kept = {k: by.get(k) for k in ("halo_px", "resize") if by.get(k) is not None} | {"slides": by.get("slides") or "tiles"}
    classes = list(fixed.scores["classes"])
    chosen = next((c for c in classes if c in str(fixed.facts["class"]).split("+")), str(fixed.facts["class"]))
    return Asked(
        fixed.drawn, classes, None if whose == "predicted" else chosen, fixed.scale, fixed.threshold.value, fixed.threshold.badge,
        kept,
    )  # fmt: skip


def _asked(meta: dict[str, Any], method: str | None, target: str | None) -> Asked:
    """A map of a model that no evaluation is known of."""
    from wsol.cams import drawer

    chosen, classes = method or "cam", list(meta.get("classes") or [])
    drawer(chosen, {})
    if not classes:
        raise ValueError("the checkpoint does not name its classes; write it with `wsol train`")
    if target is not None and target not in classes:
        raise ValueError(closest("class", target, classes))
    declared = meta.get("positive") or (classes[1:] if len(classes) == 2 else [])
    return Asked({"id": chosen, "method": chosen, "options": {}}, classes, target or next(iter(declared), None))


def _write_manifest(one: One, asked: Asked) -> None:
    """A manifest of one sample, whose label nobody reads."""
    from wsol.data import Dataset, masks_table, samples_table, write_manifest

    row = {
        "sample": one.name, "slide": one.name, "patient": "", "path": str(one.file), "mpp": float(one.mpp or "nan"), "label": 0,
        "labels": "0", "fold": 0, "role": "test",
    }  # fmt: skip
    dataset = Dataset(
        name="predict", kind="slides" if one.kind == "slides" else "images",
        task="multilabel" if one.several else "binary" if len(asked.classes) == 2 else "multiclass",
        classes=asked.classes, positive=[asked.target or asked.classes[0]], mask_means="class", split_unit="image",
        samples=samples_table([row]), masks=masks_table([]),
    )  # fmt: skip
    write_manifest(dataset, one.manifest, one.work / "masks.parquet")


def _tiled(one: One) -> Path:
    """The tile table of the slide, cut as those that the model was trained on."""
    from wsol.cli.tile import tile
    from wsol.slides import SlideError, open_slide

    try:
        open_slide(one.file, mpp=one.mpp).close()
    except SlideError as error:
        raise SlideError(str(error).replace("set the `mpp` column of the sample sheet", "give --mpp")) from error
    told = one.meta.get("settings", {}).get("tile", {})
    settings = parse(Tile, {k: v for k, v in told.items() if k not in ("labels", "features", "strict")}, "settings.tile")
    table = one.work / "tiles.parquet"
    found = tile(settings, manifest=one.manifest, slide=one.name, out=table)
    if found["status"] != "ok":
        raise RuntimeError(f"{one.file}: {found['status']}: {found['reason']}; nothing can be drawn")
    return table


def _drawn(one: One, asked: Asked, how: dict[str, Any], threads: int) -> dict[str, Any]:
    """Maps and files; what is returned is `prediction.json`."""
    from wsol.cli.heatmap import Look, draw_slide
    from wsol.cli.localize import localize
    from wsol.data import MapReader, read_manifest
    from wsol.tracking import provenance

    tiles, maps, ident = _tiled(one) if one.kind == "slides" else None, one.work / "maps.h5", asked.method["id"]
    localize(
        how, model=one.model, manifest=one.manifest, out=maps, split="test", fold=0, slide=one.name if tiles else None,
        tiles=tiles, threads=threads,
    )  # fmt: skip
    row = read_manifest(one.manifest).sample(one.name)
    with MapReader(maps) as reader:
        if failure := reader.provenance.get("failure"):
            raise RuntimeError(failure["reason"])
        stored, logits = reader.read(ident, one.name), reader.logits(one.name)
    look = Look(asked.scale or _own_scale(stored, asked.method), asked.threshold, asked.classes[stored.target])
    if tiles:
        files = draw_slide(Heatmap(mpp=_picture_mpp(one)), row, stored, look, ident, None, one.folder)
    else:
        files = _image(row, stored, look, ident, one)
    shares = dict(zip(asked.classes, probabilities(logits, one.several), strict=True))
    result = {
        "file": str(one.file),
        "kind": one.kind,
        "probabilities": shares,
        "predicted": [c for c, p in shares.items() if p >= 0.5] if one.several else max(shares, key=lambda c: shares[c]),
        "map": {
            "method": ident, "class": look.name, "scale": BADGE[look.scale.kind] if asked.scale else "range of this map",
            "threshold": asked.threshold, "threshold_source": asked.source or None, "drawn": stored.drawn,
        },
        "flagged_area": _flagged(stored, look, one.name),
        "files": {kind: str(one.folder / path) for kind, path in files.items()},
        "provenance": provenance(how, inputs={"model": one.model, "file": one.file}),
    }  # fmt: skip
    write_json(one.folder / "prediction.json", result)
    return result


def _picture_mpp(one: One) -> float:
    """The mpp of the pictures: 4, or finer where a small slide would be a stamp."""
    from wsol.slides import open_slide

    with open_slide(one.file, mpp=one.mpp) as slide:
        return max(slide.mpp, min(Heatmap().mpp, slide.mpp * max(slide.size) / LONGEST))


def _own_scale(stored: StoredMap, method: dict[str, Any]) -> Scale:
    """The range of this map (its percentiles 0.5 and 99.5), ReLU first where the method has one."""
    from wsol.cams import drawer
    from wsol.cli.scoring import cells, span

    rectified = bool(drawer(method["method"], method["options"]).rectified)
    values = cells(stored, rectified)
    low, high = span([values]) if values.size else (0.0, 1.0)
    return replace(Scale("fitted", rectified), low=low, high=high)


def _image(row: Any, stored: StoredMap, look: Look, method: str, one: One) -> dict[str, str]:
    """Overlay, OME-TIFF and, with a threshold, regions of a plain image, at its own resolution."""
    from wsol.cli.heatmap import draw_image
    from wsol.cli.scoring import score_surface
    from wsol.slides import Box, geojson, score_regions, write_ome_tiff

    folder = one.folder
    draw_image(Heatmap(), row, stored, look, method, None, folder)
    (folder / f"{row.sample}-{method}.png").replace(folder / f"{method}.png")
    surface = score_surface(stored, look.scale, stored.size, row.sample)
    write_ome_tiff(surface, folder / f"{method}.ome.tiff", mpp=row.mpp if row.mpp == row.mpp else None)
    files = {"overlay": f"{method}.png", "ome_tiff": f"{method}.ome.tiff"}
    if look.threshold is None:
        return files
    found = score_regions(surface, look.threshold, frame=Box(0, 0, stored.size[1], stored.size[0]))
    geojson(found, folder / f"{method}.geojson", classification=f"{look.name} ({method})")
    return files | {"geojson": f"{method}.geojson"}


def probabilities(logits: Any, several: bool) -> list[float]:
    """Of each class: the softmax of its logit, or where a sample may have several of them its sigmoid."""
    import numpy as np

    from wsol.evaluation import softmax

    values = np.asarray(logits, np.float64)
    return [float(p) for p in (0.5 * (1 + np.tanh(values / 2)) if several else softmax(values[None])[0])]


def _flagged(stored: StoredMap, look: Look, name: str) -> float | None:
    """Share of the file at or above the threshold."""
    if look.threshold is None:
        return None
    height, width = (max(1, round(side * min(1.0, LONGEST / max(stored.size)))) for side in stored.size)
    return float((score(stored, look.scale, (height, width), name) >= look.threshold).mean())
