"""`wsol new`: a folder of slides and a CSV of labels become a study that can be run."""

from __future__ import annotations

import csv
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

import wsol
from wsol._names import closest
from wsol.cli.cohort import NEGATIVE, Cohort, plain_name, survey
from wsol.cli.config import ConfigError, load_config

STUDY, SHEET = "study.yaml", "sheet.csv"
SHOWN = 20
"""Problems that are said; of a thousand the first are enough to see what is wrong."""

TEMPLATE = """\
# {title}: {count} {kind}, {classes}. Written by `wsol new`; every key is explained in docs/configuration.md.
# What is left out here has a default. Check changes by `wsol config {file}`.
prepare:
  name: {name}                  # stands in every path below results/
  source: {kind}
  options:
    sheet: {sheet}
    classes: {names}
    positive: {positive}        # the class whose maps are drawn
{folds}{tile}
models:                         # localizers by name; `wsol list heads`
  gap: {{head: gap}}
  lse: {{head: lse, head_options: {{r: 5}}}}
  # small-change: {{from: gap, head: lse}}    # starts from the trained weights of `gap`

maps:                           # map methods by set; `wsol list cams`
  fast: [cam, grad-cam, hirescam, layer-cam]

checkpoints: [b-cl]             # best validation accuracy; also last, masks-6, map-stability (docs/model-selection.md)
folds: [0]                      # [0, 1, 2, 3, 4] for intervals over the whole cohort
seeds: [0]

{train}
evaluate: {{splits: [test], threshold: auto}}   # validation masks where there are some, else Otsu; never the test masks
# probe: {{samples: 8}}           # faithfulness and sanity of the maps
# log: {{tracking_uri: https://mlflow.example.org}}   # MLflow; by default SQLite at results/log/mlflow.db
"""

TRAIN = """\
train: {epochs: 20, repeats: 2, batch_size: 2, tiles_per_bag: 8}
# Memory grows with batch_size * tiles_per_bag * tile_px^2: 2 * 8 tiles of 256 px take 3.7 GB per training, 4 * 16 some 10 GB.
# `snakemake --resources mem_mb=8000` keeps all that runs at once within 8 GB together."""

TILE = """\

tile:
  mpp: {mpp:g}                        # um per px at which the network sees tissue; yours are {finest:g} to {coarsest:g}
  tile_px: 256
  min_tissue: 0.2               # least share of a tile that is tissue
"""


def new(
    folder: Path,
    *,
    slides: Path,
    labels: Path,
    masks: Path | None = None,
    positive: str | None = None,
    mpp: float | None = None,
    skip: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Write `study.yaml` and `sheet.csv` below `folder`, after every file was opened and the study rehearsed.

    Args:
        folder: of the study; its name becomes that of the dataset.
        slides: as in `survey`, like labels, masks, mpp and skip.
        labels: see there.
        masks: see there.
        positive: class whose maps are drawn; by default the one of two that is not called normal, negative, benign ...
        mpp: see there.
        skip: see there.
        force: overwrite a study.

    Returns:
        Plain values: study, sheet, kind, samples, classes, patients, positive, left_out, notes, next (the command to run it).

    Raises:
        ConfigError: one line for each thing that stands in the way; nothing was written.
    """
    target, name = folder / STUDY, plain_name(folder.absolute().name)
    if target.exists() and not force:
        raise ValueError(f"{target} is there already; --force overwrites it, or choose another name")
    cohort = survey(slides, labels, masks=masks, mpp=mpp, skip=skip)
    chosen = _positive(cohort, positive)
    if cohort.problems:
        wrong = [*cohort.problems, *([] if cohort.rows or not skip else cohort.left_out)]
        more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        advice = [] if skip or not cohort.rows else ["--skip leaves out what cannot be used"]
        raise ConfigError(str(labels), [*wrong[:SHOWN], *more, *advice])
    sheet = (folder / SHEET).absolute()
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as work:
            _write_sheet(cohort, Path(work) / SHEET)
            _rehearse(Path(work), _study(cohort, name, Path(work) / SHEET, chosen, target))
            (Path(work) / STUDY).write_text(_study(cohort, name, sheet, chosen, target), encoding="utf-8")
            for file in (SHEET, STUDY):
                os.replace(Path(work) / file, folder / file)
    except BaseException:
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise
    return {
        "study": str(target), "sheet": str(folder / SHEET), "kind": cohort.kind, "samples": len(cohort.rows),
        "classes": cohort.classes, "patients": cohort.patients, "positive": chosen, "left_out": cohort.left_out,
        "notes": cohort.notes, "next": command(target),
    }  # fmt: skip


def _positive(cohort: Cohort, wanted: str | None) -> str:
    """The positive class; where it has to be guessed a note says so, and where it cannot be a problem."""
    names = list(cohort.classes)
    if wanted is not None:
        if wanted not in names:
            raise ValueError(f"--positive: {closest('label', wanted, names)}")
        return wanted
    if not names:  # said already: there is no row
        return ""
    others = [name for name in names if name.lower() not in NEGATIVE]
    if len(others) != 1 and len(names) != 2:
        cohort.problems.append(f"which of {', '.join(names)} is positive? Give --positive, the class whose maps are drawn")
    chosen = others[0] if len(others) == 1 else names[-1]
    cohort.notes.append(f"{chosen!r} is taken for the positive class; --positive names another")
    return chosen


def _write_sheet(cohort: Cohort, path: Path) -> None:
    """The sample sheet, without columns that are blank throughout."""
    kept = [c for c in cohort.rows[0] if c in ("sample", "path", "label", "patient") or any(row[c] for row in cohort.rows)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(cohort.rows)


def _study(cohort: Cohort, name: str, sheet: Path, positive: str, file: Path) -> str:
    """The text of the configuration."""
    names = [*(c for c in cohort.classes if c != positive), positive]
    split = any(row["split"] for row in cohort.rows)
    units = [{row["patient"] or row["sample"] for row in cohort.rows if row["label"] == c} for c in names]
    folds = max(3, min(5, *map(len, units)))
    tile, train = "", f"train: {{epochs: 20, crop: {max(32, min(416, (cohort.smallest or 416) // 32 * 32))}}}"
    if cohort.kind == "slides":
        finest, coarsest = min(cohort.mpps), max(cohort.mpps)
        tile = TILE.format(mpp=max(1.0, round(coarsest, 3)), finest=round(finest, 3), coarsest=round(coarsest, 3))
        train = TRAIN
    counts = " ".join(", ".join(f"{count} {label}" for label, count in cohort.classes.items()).split())
    return TEMPLATE.format(
        title=name, name=_quoted(name), count=len(cohort.rows), kind=cohort.kind, classes=counts, file=file,
        sheet=_quoted(str(sheet)), names=_quoted(names), positive=_quoted(positive),
        folds="" if split else f"    folds: {folds}                    # patient-wise; at least 3\n", tile=tile, train=train,
    )  # fmt: skip


def _quoted(value: str | list[str]) -> str:
    """As YAML reads it back whatever it is: without quotes `yes`, `null` and `1e3` are no names."""
    return json.dumps(value, ensure_ascii=False)


def _rehearse(work: Path, text: str) -> None:
    """Raise unless the study would run; all that is wrong is said at once."""
    from wsol.cli.rehearsal import rehearse

    (work / STUDY).write_text(text, encoding="utf-8")
    if findings := rehearse(load_config(work / STUDY)):
        raise ConfigError("the study", findings)


def command(study: Path) -> str:
    """What runs a study from here: without a Snakefile here, with that of the package's checkout, and its profile."""
    root = Path(wsol.__file__).parents[1] / "Snakefile"
    here = Path("Snakefile")
    words = ["snakemake", "--cores", str(len(os.sched_getaffinity(0)))]
    if not (here.is_file() and root.is_file() and here.samefile(root)):
        words += ["--snakefile", str(root), "--workflow-profile", str(root.parent / "workflow" / "profiles" / "default")]
    return shlex.join([*words, "--configfile", str(study)])
