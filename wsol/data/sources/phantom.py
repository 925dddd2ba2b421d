"""Source `phantom`: H&E-like slides with exact tumor masks, drawn on the spot.

Synthetic; needs no download and no permission. Each slide is a pyramidal TIFF (JPEG tiles of 256 px, 0.5 um per px) that
OpenSlide opens; beside a positive one stands its tumor region, a PNG at level 0. Supervision: slide labels, exact masks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol._files import atomic
from wsol._names import closest

if TYPE_CHECKING:
    from wsol.data.manifest import Dataset

CLASSES = ["normal", "tumor"]
DIFFICULTIES = ("easy", "hard")
MPP = 0.5
RECIPE = 1
"""Counted up when the same options draw other pixels: slides of an older recipe are drawn anew."""


@dataclass(frozen=True)
class Slide:
    """All that decides one slide's pixels."""

    sample: str
    positive: bool
    size: int
    seed: int
    patient_seed: int
    difficulty: str
    prevalence: float
    recipe: int = RECIPE

    @property
    def key(self) -> str:
        """A hash of the pixels' recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def listing(
    out: str | Path,
    slides: int = 16,
    size: int = 4096,
    seed: int = 0,
    difficulty: str = "easy",
    prevalence: float = 0.2,
    patients: int = 8,
    mixed_patients: bool = True,
    folds: int = 1,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """The rows of the manifest, without drawing anything: one per (slide, fold, role).

    Half of the patients train, a quarter each validates and tests; each role holds both classes; the masks of all validation
    slides may be opened (`valpx` = `valcl`). Further folds rotate the patients.

    Args:
        out: folder of the slides.
        slides: how many.
        size: side in level-0 px (0.5 um).
        seed: of everything.
        difficulty: "easy" (a tumor is also darker) or "hard" (a stain filter does not find it).
        prevalence: share of a whole positive slide that is tumor, on average.
        patients: slides go round among them; they share a patient's stain and scanner.
        mixed_patients: patients hold slides of both classes; otherwise every second patient has tumor on all slides.
        folds: how many rotations.
        workers: of no effect here.

    Returns:
        Rows with sample, slide, patient, path, mpp, label (0 normal, 1 tumor), fold, role.
    """
    plan = _plan(slides, size, seed, difficulty, prevalence, patients, mixed_patients)
    rows = []
    for fold, roles in enumerate(_roles(patients, mixed_patients, folds)):
        for role in ("train", "valcl", "valpx", "test"):
            here = [i for i in range(slides) if i % patients in roles["valcl" if role == "valpx" else role]]
            labels = {plan[i].positive for i in here}
            if len(labels) < 2:
                raise ValueError(
                    f"role {role} of fold {fold} lacks a class with slides={slides}, patients={patients}, "
                    f"mixed_patients={mixed_patients}; take more slides or patients (the default is 16 and 8)"
                )
            rows += [_row(plan[i], i % patients, Path(out), fold, role) for i in here]
    return rows


def dataset(
    out: str | Path,
    slides: int = 16,
    size: int = 4096,
    seed: int = 0,
    difficulty: str = "easy",
    prevalence: float = 0.2,
    patients: int = 8,
    mixed_patients: bool = True,
    folds: int = 1,
    workers: int = 1,
) -> Dataset:
    """Draws the slides that are missing in `out`, or were drawn with other options, and lists them all.

    Safe to kill: a slide counts only once its recipe (`<sample>.json`) stands beside it, which is written last.

    Args:
        out: folder for `<sample>.tiff`, `<sample>_mask.png` (positive slides only) and `<sample>.json`; a study that names none
            has them below its results.
        slides: how many.
        size: side in level-0 px (0.5 um).
        seed: of everything.
        difficulty: "easy" (a tumor is also darker) or "hard" (a stain filter does not find it).
        prevalence: share of a whole positive slide that is tumor, on average.
        patients: slides go round among them; they share a patient's stain and scanner.
        mixed_patients: patients hold slides of both classes; otherwise every second patient has tumor on all slides.
        folds: how many rotations of the patients.
        workers: processes that draw.
    """
    import pandas as pd

    from wsol.data.manifest import Dataset, masks_table

    out = Path(out)
    rows = listing(out, slides, size, seed, difficulty, prevalence, patients, mixed_patients, folds)
    plan = _plan(slides, size, seed, difficulty, prevalence, patients, mixed_patients)
    out.mkdir(parents=True, exist_ok=True)
    draw_missing(plan, out, workers)
    masks = [
        {
            "sample": s.sample,
            "mask": str(out / f"{s.sample}_mask.png") if s.positive else "",
            "kind": "file" if s.positive else "empty",
            "values": "[]",
        }
        for s in plan
    ]
    return Dataset(
        name="phantom",
        kind="slides",
        task="binary",
        classes=list(CLASSES),
        positive=[CLASSES[1]],
        mask_means="class",
        split_unit="patient",
        samples=pd.DataFrame(rows),
        masks=masks_table(masks),
    )


def draw_missing(plan: Iterable[Slide], out: Path, workers: int = 1) -> list[str]:
    """Draws the slides of `plan` that `out` does not hold yet; returns their names."""
    todo = [s for s in plan if not _finished(s, out)]
    if workers > 1 and len(todo) > 1:
        with ProcessPoolExecutor(min(workers, len(todo)), mp_context=get_context("spawn")) as pool:
            list(pool.map(write_slide, todo, [out] * len(todo)))
    else:
        for slide in todo:
            write_slide(slide, out)
    return [s.sample for s in todo]


def write_slide(slide: Slide, out: Path) -> None:
    """Draws one slide and writes its image, its mask if positive, and last its recipe."""
    import cv2

    from wsol.data.sources.phantom_draw import draw_phantom
    from wsol.data.sources.phantom_tiff import write_pyramid

    rgb, mask, facts = draw_phantom(
        slide.size,
        slide.seed,
        positive=slide.positive,
        difficulty=slide.difficulty,  # type: ignore[arg-type]
        prevalence=slide.prevalence,
        patient_seed=slide.patient_seed,
    )
    recipe, mask_path = out / f"{slide.sample}.json", out / f"{slide.sample}_mask.png"
    recipe.unlink(missing_ok=True)  # from here to the end the slide counts as unfinished
    write_pyramid(rgb, out / f"{slide.sample}.tiff", MPP)
    if slide.positive:
        _write(mask_path, cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes())
    else:
        mask_path.unlink(missing_ok=True)
    _write(recipe, json.dumps({"key": slide.key, **asdict(slide), "facts": facts}, indent=1).encode())


def _plan(slides: int, size: int, seed: int, difficulty: str, prevalence: float, patients: int, mixed: bool) -> list[Slide]:
    if difficulty not in DIFFICULTIES:
        raise ValueError(closest("difficulty", difficulty, DIFFICULTIES))
    if not 1 <= patients <= slides or size < 256 or not 0 < prevalence <= 0.5:
        raise ValueError(
            f"a phantom needs 1 <= patients <= slides, size >= 256 px and prevalence in (0, 0.5]; "
            f"got slides={slides}, patients={patients}, size={size}, prevalence={prevalence}"
        )
    plan = []
    for i in range(slides):
        patient, turn = i % patients, i // patients
        positive = (patient + turn if mixed else patient) % 2 == 1
        name = f"phantom-{i:03d}"
        plan.append(Slide(name, positive, size, 100_003 * seed + i, 100_003 * seed + patient, difficulty, prevalence))
    return plan


def _roles(patients: int, mixed: bool, folds: int) -> list[dict[str, set[int]]]:
    """Which patients take which role, per fold: a quarter tests, a quarter validates, the rest trains."""
    unit = 1 if mixed else 2  # patients of one class each go in pairs
    part = max(unit, round(patients / 4 / unit) * unit)
    if patients < 3 * unit or not 1 <= folds <= max(1, patients // part):
        raise ValueError(
            f"three roles of {unit} or more patients each, and 1 to {max(1, patients // part)} folds that test other patients; "
            f"got patients={patients}, folds={folds}"
        )
    out = []
    for fold in range(folds):
        order = [(p - fold * part) % patients for p in range(patients)]
        out.append({"train": set(order[: -2 * part]), "valcl": set(order[-2 * part : -part]), "test": set(order[-part:])})
    return out


def _row(slide: Slide, patient: int, out: Path, fold: int, role: str) -> dict[str, Any]:
    path = str(out / f"{slide.sample}.tiff")
    words = {"sample": slide.sample, "slide": slide.sample, "patient": f"patient-{patient:02d}", "path": path}
    label = int(slide.positive)
    return {**words, "mpp": MPP, "label": label, "labels": str(label), "fold": fold, "role": role}


def _finished(slide: Slide, out: Path) -> bool:
    recipe, image, mask = (out / f"{slide.sample}{end}" for end in (".json", ".tiff", "_mask.png"))
    if not (recipe.exists() and image.exists() and (mask.exists() or not slide.positive)):
        return False
    return bool(json.loads(recipe.read_text())["key"] == slide.key)


def _write(path: Path, data: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(data)
