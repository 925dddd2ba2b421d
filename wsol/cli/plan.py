"""What a study will run: the path grammar, once, and the grid of runs. Torch-free; the workflow and the verbs share it."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsol._names import resolve
from wsol._options import check_options
from wsol.cli.config import Config

RUN = "{dataset}/{model}/fold{fold}/seed{seed}"
"""Path of one training run below results/<verb>/."""

MAPS = RUN + "/{checkpoint}/{set}"
"""Path of one map set of one checkpoint; floors are the model `floors` with checkpoint `none` and set `floors`."""

JOBS = 500
"""Up to so many slides each has jobs of its own, above it several share one: planning takes Snakemake milliseconds per job."""

FLOORS = {"model": "floors", "checkpoint": "none", "set": "floors"}


@dataclass(frozen=True)
class Plan:
    """The grid of one study: which slides each split of each fold holds (slide datasets only) and which files are wanted."""

    config: Config
    slides: dict[tuple[int, str], list[str]]
    paths: dict[str, str]

    @property
    def by_slide(self) -> bool:
        """Whether maps are drawn slide by slide (slide datasets) or split by split (image datasets)."""
        return bool(self.slides)

    def splits(self) -> list[str]:
        """Splits whose maps are needed: those that are scored, and the validation split that thresholds and scales come from."""
        return list(dict.fromkeys(["valcl", *self.config.evaluate.splits]))

    def part(self, fold: int, part: str) -> list[str]:
        """Slides of one role of a fold; of the part `training`, those that a training run reads."""
        roles = ("train", "valcl", "valpx") if part == "training" else (part,)
        return sorted({s for role in roles for s in self.slides.get((fold, role), [])})

    @property
    def slides_per_job(self) -> int:
        """Slides of one job: as configured, else as many as keep all slides at `JOBS` jobs."""
        return self.config.slides_per_job or max(1, math.ceil(len(self.paths) / JOBS))

    def lots(self, slides: Sequence[str]) -> dict[str, list[str]]:
        """Slides by the job that works on them: alone under their own name, several under a number."""
        size = self.slides_per_job
        if size == 1:
            return {slide: [slide] for slide in slides}
        return {f"{i // size:05d}": list(slides[i : i + size]) for i in range(0, len(slides), size)}

    def runs(self, floors: bool) -> list[dict[str, Any]]:
        """Wildcards of every evaluation, floors last."""
        c = self.config
        base = [{"dataset": c.prepare.name, "fold": f, "seed": s} for f in c.folds for s in c.seeds]
        runs = [
            {**b, "model": m, "checkpoint": k, "set": n} for b in base for m in c.models for k in c.kept(m) for n in c.sets(m)
        ]
        return runs + ([{**b, **FLOORS} for b in base] if floors and c.evaluate.floors else [])


def plan(config: Config) -> Plan:
    """The grid of `config`. Slide datasets are listed (cheap: no pixels are read), image datasets need no listing.

    Raises:
        ValueError: a configured fold has no samples, or an option of the source is wrong.
    """
    from wsol.data import KINDS, SOURCES

    source = config.prepare.source
    if KINDS[source] == "images":
        return Plan(config, {}, {})
    listing = resolve("source", source, SOURCES, "wsol.data").listing
    slides: dict[tuple[int, str], list[str]] = {}
    paths: dict[str, str] = {}
    options = source_options(config)
    check_options(f"source {source!r} (prepare.options)", listing, options)
    for row in listing(**options):
        slides.setdefault((int(row["fold"]), str(row["role"])), []).append(str(row["sample"]))
        paths[str(row["sample"])] = str(row["path"])
    require_folds(config, slides)
    return Plan(config, slides, paths)


def sheet_files(config: Config) -> dict[str, list[Path]]:
    """Column -> files: of a study with a sample sheet the sheet itself, and what its columns `path` and `mask` name; else empty.

    What is wrong with the sheet is left for `wsol prepare` to say.
    """
    found: dict[str, list[Path]] = {"sheet": [], "path": [], "mask": []}
    sheet = Path(str(config.prepare.options.get("sheet", "")))
    if sheet.is_file():
        found["sheet"] = [sheet]
        with suppress(ValueError, csv.Error), open(sheet, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                for column in ("path", "mask"):
                    found[column] += [sheet.parent / row[column].strip()] if (row.get(column) or "").strip() else []
    return found


def state(files: Sequence[Path]) -> str:
    """Sizes and times of change of files, as a short digest that is another when one of them changes; empty without files."""
    digest = hashlib.sha256()
    for path in files:
        try:
            seen = path.stat()
            digest.update(f"{path} {seen.st_size} {seen.st_mtime_ns}".encode())
        except OSError:  # what is missing counts, too: it may come
            digest.update(f"{path} -".encode())
    return digest.hexdigest()[:12] if files else ""


def require_folds(config: Config, found: Collection[tuple[int, str]]) -> None:
    """Raise ValueError unless every configured fold has samples to train on among the (fold, role) that were `found`."""
    missing = [fold for fold in config.folds if (fold, "train") not in found]
    if missing:
        have = sorted({fold for fold, _ in found})
        raise ValueError(f"folds: {missing} have no samples in dataset {config.prepare.name!r}; it has folds {have}")


def source_options(config: Config) -> dict[str, Any]:
    """Options of the configured source; slides that are drawn or put together go below results/prepare/."""
    options = dict(config.prepare.options)
    if config.prepare.source in ("phantom", "tiles"):
        options.setdefault("out", f"{config.results}/prepare/{config.prepare.name}/slides")
    return options


def model_settings(config: Config, name: str) -> dict[str, Any]:
    """All that decides the weights of one model: its parts and its training settings, as plain JSON."""
    model = config.models[name].model_dump(by_alias=True, exclude={"maps"})  # what is drawn later does not decide them
    # Strictness decides whether there is a study, not what comes of it.
    tile = config.tile.model_dump(exclude={"strict", *(("features",) if config.tile.features is None else ())})
    return {**model, "as_published": config.defects(name), "train": config.training(name), "tile": tile}
