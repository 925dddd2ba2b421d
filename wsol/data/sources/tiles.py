"""Tiles or region images that were cut from slides before, put back in their places: one sample per slide."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol._names import closest
from wsol.data.manifest import Dataset
from wsol.data.sources import sheet as sheets
from wsol.data.sources.sheet_rows import Row

if TYPE_CHECKING:
    from wsol.slides import Layout

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
LABELS = ("same", "any")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Cut:
    """One image that was cut from a slide: its file, place in level-0 px, and its mask where it has one."""

    path: Path
    x: int
    y: int
    mask: Path | None = None


@dataclass(frozen=True)
class Slide:
    """A row as if the sheet listed the slide, the images that were cut from it, and level-0 px per px of these."""

    row: Row
    cuts: list[Cut]
    down: float


def dataset(
    sheet: str | Path,
    classes: Sequence[str],
    out: str | Path,
    pattern: str | None = None,
    step: int = 1,
    coords_mpp: float | None = None,
    label: str = "same",
    positive: str | Sequence[str] | None = None,
    mask_means: str = "class",
    mask_values: Mapping[str, Sequence[int | str]] | None = None,
    folds: int = 5,
    valpx: int = 3,
    seed: int = 0,
) -> Dataset:
    """Slides made of the images that a CSV lists, or of those in the folders that it lists.

    Columns as for the source `images`. Without `pattern` a row is an image, and `slide`, `x`, `y` and `mpp` say where it was cut
    and at which resolution. With it a row is a slide, `path` its folder, `mpp` that of its images, and their names say where they
    lie. Each slide becomes a mosaic, which all verbs read as the slide itself: bags, maps, heat maps and numbers are those of
    slides, in level-0 px of the slide that was cut. Where there is no image it is white and, where others have masks, not
    foreground. What was put together (sizes, images, covered area, steps) stands in the `source` of the dataset.

    Args:
        sheet: the CSV.
        classes: two names or more, as the `label` column has them.
        out: folder of the mosaics, small files that name the images; a study that names none has them below its results.
        pattern: regular expression for paths below the folder of a slide, with the groups x and y, e.g.
            ".*_(?P<x>[0-9]+)_(?P<y>[0-9]+)[.]png"; other images there are left alone.
        step: level-0 px per unit of x and y, where these count tiles instead of px.
        coords_mpp: um per px of x and y (of level 0), where the images were saved at a coarser `mpp`; that of the images if None.
        label: "same": all images of a slide have its label; "any": a slide is positive if one of its images is.
        positive: the class whose maps are drawn; the second of two by default.
        mask_means: "class": masks mark the positive class; "any-foreground": something that every class may hold.
        mask_values: ids that are foreground per class, e.g. {tumor: [2]}; without it all ids above 0.
        folds: parts, at least 3; not used with a `split` column.
        valpx: validation slides per class whose masks may be opened; not used where the `split` column names some.
        seed: of the parting and of the choice of `valpx`.

    Raises:
        FileNotFoundError: no sheet, or no image where the pattern looks for some.
        ValueError: mistakes in the sheet or pattern; images of one slide that disagree, or that cannot lie as they are said to.
    """
    given = sheets.options("slides", sheet, classes, positive, mask_means, mask_values, folds, valpx, seed)
    slides = _slides(given, Path(out), pattern, step, coords_mpp, label)
    made = [_write(slide) for slide in slides]
    found = sheets.build(given, [slide.row for slide in slides])
    found.source = f"images cut from slides, {given.sheet}: {_summary(made)}"
    return found


def listing(
    sheet: str | Path,
    classes: Sequence[str],
    out: str | Path,
    pattern: str | None = None,
    step: int = 1,
    coords_mpp: float | None = None,
    label: str = "same",
    positive: str | Sequence[str] | None = None,
    mask_means: str = "class",
    mask_values: Mapping[str, Sequence[int | str]] | None = None,
    folds: int = 5,
    valpx: int = 3,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The rows of the manifest as `dataset` has them; nothing is written."""
    given = sheets.options("slides", sheet, classes, positive, mask_means, mask_values, folds, valpx, seed)
    return sheets.rows(given, [slide.row for slide in _slides(given, Path(out), pattern, step, coords_mpp, label)])


def _slides(
    given: sheets.Options, out: Path, pattern: str | None, step: int, coords_mpp: float | None, label: str
) -> list[Slide]:
    if label not in LABELS:
        raise ValueError(closest("label", label, LABELS))
    if step < 1:
        raise ValueError(f"step: level-0 px per unit of x and y, at least 1; got {step}")
    if pattern is not None:
        rows = sheets.read_sheet(replace(given, folders=True))
        named = [(row, row.mask, _named(given, row, _compiled(pattern), step)) for row in rows]
        return [_slide(given, row, mask, cuts, out, coords_mpp) for row, mask, cuts in named]
    groups: dict[str, list[Row]] = {}
    for row in sheets.read_sheet(replace(given, kind="images")):
        groups.setdefault(row.slide, []).append(row)
    listed = [_listed(given, name, rows, out, step, label) for name, rows in groups.items()]
    return [_slide(given, row, mask, cuts, out, coords_mpp) for row, mask, cuts in listed]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r}: no regular expression ({error})") from error
    if not {"x", "y"} <= set(found.groupindex):
        raise ValueError(f"pattern {pattern!r}: groups named x and y expected, as in (?P<x>[0-9]+)_(?P<y>[0-9]+)")
    return found


def _named(given: sheets.Options, row: Row, pattern: re.Pattern[str], step: int) -> list[Cut]:
    """The images of a folder, which say by their names where they lie."""
    if row.mask is not None and row.mask.suffix.lower() not in (".xml", ".geojson", ".json"):
        raise ValueError(
            f"{given.sheet}: row {row.number}: mask {row.mask.name}: polygons in level-0 px expected (.xml, .geojson) for a "
            "folder of images; list them one by one to give each its mask"
        )
    cuts = []
    for path in sorted(p for p in row.path.rglob("*") if p.suffix.lower() in IMAGES):
        if match := pattern.fullmatch(path.relative_to(row.path).as_posix()):
            cuts.append(Cut(path, _number(path, match, "x") * step, _number(path, match, "y") * step))
    if not cuts:
        raise FileNotFoundError(
            f"{given.sheet}: row {row.number}: no image below {row.path} has a name like {pattern.pattern!r} (paths below that "
            "folder are matched as a whole)"
        )
    return cuts


def _number(path: Path, match: re.Match[str], group: str) -> int:
    """The number that a group took out of a file name: all of its digits, but for those that other groups took."""
    told, where = match[group], f"{path}: pattern {match.re.pattern!r}"
    if told is None or not re.fullmatch("[0-9]+", told):
        raise ValueError(f"{where} takes {group}={told!r}: a whole number from 0 expected; write (?P<{group}>[0-9]+)")
    (start, end), name = match.span(group), match.string
    others = [match.span(i) for i in range(1, 1 + match.re.groups) if i != match.re.groupindex[group]]
    cut_left = name[:start][-1:].isdigit() and start not in [right for _, right in others]
    cut_right = name[end:][:1].isdigit() and end not in [left for left, _ in others]
    if cut_left or cut_right:
        whole = next(found[0] for found in re.finditer("[0-9]+", name) if found.start() <= start < found.end())
        raise ValueError(
            f"{where} takes {group}={told} from {whole}: let something that is no digit stand before and after the group, as in "
            f"_(?P<{group}>[0-9]+)[.]"
        )
    return int(told)


def _listed(
    given: sheets.Options, name: str, rows: Sequence[Row], out: Path, step: int, label: str
) -> tuple[Row, Path | None, list[Cut]]:
    """The row, mask and images of a slide whose images are rows of the sheet."""
    where = f"{given.sheet}: slide {name!r}"
    if placeless := [row.number for row in rows if math.isnan(row.x) or math.isnan(row.y)]:
        raise ValueError(f"{where}: row {placeless[0]} has no x or y ({len(placeless)} such rows); fill in where it was cut")
    for what in ("mpp", "split", *(("label",) if label == "same" else ())):
        told = {str(getattr(row, what)) for row in rows}
        if len(told) > 1:
            remedy = "; with label: any a slide is positive if one of its images is" if what == "label" else ""
            raise ValueError(f"{where}: its images differ in {what}: {sorted(told)}; a slide has one{remedy}")
    positive = given.classes.index(given.positive[0])
    first = next((row for row in rows if row.label == positive), rows[0])
    masked = any(row.mask for row in rows)
    bare = [row.number for row in rows if row.mask is None and row.label == positive]
    if masked and bare:
        raise ValueError(f"{where}: row {bare[0]} is positive and has no mask, others have; a slide has all of its masks or none")
    cuts = [Cut(row.path, int(row.x) * step, int(row.y) * step, row.mask) for row in rows]
    return replace(first, sample=name), out / f"{name}_mask.mosaic" if masked else None, cuts


def _slide(given: sheets.Options, row: Row, mask: Path | None, cuts: list[Cut], out: Path, coords_mpp: float | None) -> Slide:
    if not NAME.fullmatch(row.sample):
        raise ValueError(
            f"{given.sheet}: slide {row.sample!r}: letters, digits and _ . + - expected (it becomes a file name); rename it"
        )
    mpp = row.mpp if coords_mpp is None else coords_mpp
    if math.isnan(row.mpp) or not 0 < mpp <= row.mpp:
        raise ValueError(
            f"{given.sheet}: slide {row.sample!r}: mpp, the um per px of its images, expected, and not below coords_mpp; got "
            f"{row.mpp} and {coords_mpp}"
        )
    made = replace(row, path=out / f"{row.sample}.mosaic", slide=row.sample, mask=mask, mpp=mpp)
    return Slide(made, cuts, row.mpp / mpp)


def _write(slide: Slide) -> Layout:
    """The mosaics of a slide and of its masks; what its images make together."""
    from wsol.data.pixels import image_shape
    from wsol.slides import Piece, write_mosaic

    shapes = [image_shape(cut.path) for cut in slide.cuts]
    pairs = list(zip(slide.cuts, shapes, strict=True))
    pieces = [Piece(str(cut.path), cut.x, cut.y, shape[1], shape[0]) for cut, shape in pairs]
    try:
        made = write_mosaic(slide.row.path, pieces, mpp=slide.row.mpp, down=slide.down)
    except ValueError as error:
        raise ValueError(f"slide {slide.row.sample!r}: {error}") from error
    masks = [(cut, cut.mask, shape) for cut, shape in pairs if cut.mask is not None]
    for cut, mask, shape in masks:
        if (own := image_shape(mask)) != shape:
            raise ValueError(f"mask {mask} is {own} (H, W) px but its image {cut.path} is {shape}; export it at the image's size")
    if masks and slide.row.mask is not None:
        pieces = [Piece(str(mask), cut.x, cut.y, shape[1], shape[0]) for cut, mask, shape in masks]
        write_mosaic(slide.row.mask, pieces, mpp=slide.row.mpp, down=slide.down)
    return made


def _summary(made: Sequence[Layout]) -> str:
    """What was put together, least to most."""
    spans = {
        "images": [one.images for one in made],
        "px wide": [one.size[0] for one in made],
        "px high": [one.size[1] for one in made],
        "% covered": [round(100 * one.covered, 1) for one in made],
        "px from image to image": [one.step for one in made],
    }
    told = [
        f"{min(values):g}{f' to {max(values):g}' if max(values) > min(values) else ''} {unit}" for unit, values in spans.items()
    ]
    return f"{len(made)} slides, each of {', '.join(told)} (level-0 px)"
