"""The manifest: which samples there are, their labels and their roles, and nothing about their masks.

Two parquet files come from one `Dataset`. The manifest is what training and localization read; the masks (`wsol.data.masks`) are
a file of their own, so that a job which was not given it cannot open one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wsol._files import atomic
from wsol._names import closest

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("train", "valcl", "valpx", "test")
"""train; valcl: validation by image labels; valpx: the few validation samples whose masks may be opened, all in valcl; test."""

MANIFEST = {
    "sample": "str",
    "slide": "str",
    "patient": "str",
    "path": "str",
    "mpp": "float64",
    "label": "int64",
    "labels": "str",
    "fold": "int64",
    "role": "str",
}
"""Columns of the manifest, one row per (sample, fold, role): `patient` is "" where unknown, `mpp` um per px or NaN, `label` an
index into the classes, `labels` the indices of all classes that a sample has, with spaces between: more than `label` only where
the task is multilabel, and there `label` is the positive class if it is among them."""

MASKS = {"sample": "str", "mask": "str", "kind": "str", "values": "str", "um": "float64"}
"""Columns of the masks, one row per sample that has one: `kind` "file" (path in `mask`) or "empty" (known by the label to hold no
foreground), `values` a JSON list of the ids that are foreground, [] for all above 0."""

_KEY = b"wsol"
_SAME = ("slide", "patient", "path", "label", "labels")


@dataclass
class Dataset:
    """What a source gives: samples with roles, and masks.

    Attributes:
        name: of the dataset; it stands in paths.
        kind: "slides" are cut into tiles, "images" are taken as they are.
        task: "binary" (two classes) or "multiclass" (more): a sample has one of them; "multilabel": it may have several.
        classes: names; labels index them.
        positive: the declared positive class or classes, whose maps are drawn.
        mask_means: "class": the mask marks the positive class; "any-foreground": it marks something that every class may hold.
        split_unit: what the splits keep apart.
        samples: columns as in `MANIFEST`.
        masks: columns as in `MASKS`.
        source: one line on where the samples come from.
        note: a sentence to show above every table of numbers, or "".
    """

    name: str
    kind: Literal["slides", "images"]
    task: str
    classes: list[str]
    positive: list[str]
    mask_means: Literal["class", "any-foreground"]
    split_unit: Literal["patient", "slide", "image"]
    samples: pd.DataFrame
    masks: pd.DataFrame
    source: str = ""
    note: str = ""

    def check(self) -> None:
        """Raises ValueError where tables and declarations contradict themselves or each other."""
        _choice("kind", self.kind, ("slides", "images"))
        _choice("task", self.task, ("binary", "multiclass", "multilabel"))
        _choice("mask_means", self.mask_means, ("class", "any-foreground"))
        _choice("split_unit", self.split_unit, ("patient", "slide", "image"))
        count = len(set(self.classes))
        fits = {"binary": count == 2, "multiclass": count > 2, "multilabel": count >= 2}[self.task]
        if count != len(self.classes) or not fits:
            raise ValueError(
                f"{self.name}: a binary task has two different classes, a multiclass one more; got {self.task} and {self.classes}"
            )
        for name in self.positive:
            _choice("positive class", name, self.classes)
        if not self.positive:
            raise ValueError(f"{self.name}: no positive class declared; name one of {self.classes}")
        if self.task == "multilabel" and len(self.positive) > 1:
            raise ValueError(f"{self.name}: where samples have several labels, one class is positive; got {self.positive}")
        _check_samples(self.name, self.samples, len(self.classes))
        several = self.samples["labels"] != self.samples["label"].astype(str)
        if self.task != "multilabel":
            _first(several, self.samples, self.name, f"has several labels, but the task is {self.task}")
        _check_masks(self.name, self.masks, set(self.samples["sample"]))


@dataclass(frozen=True)
class Manifest:
    """A manifest read from a file; attributes as in `Dataset`, without masks."""

    path: Path
    name: str
    kind: str
    task: str
    classes: list[str]
    positive: list[str]
    mask_means: str
    split_unit: str
    source: str
    note: str
    samples: pd.DataFrame = field(repr=False)

    @property
    def folds(self) -> list[int]:
        """The folds there are, ascending."""
        return sorted(int(f) for f in self.samples["fold"].unique())

    def rows(self, fold: int, role: str) -> pd.DataFrame:
        """The samples of one role of one fold, in the order of the source; none for a role the fold does not use.

        Raises:
            ValueError: the fold or the role does not exist.
        """
        _choice("role", role, ROLES)
        if fold not in self.folds:
            raise ValueError(f"{self.path}: no fold {fold}; it has folds {self.folds}")
        found = self.samples[(self.samples["fold"] == fold) & (self.samples["role"] == role)]
        return found.reset_index(drop=True)

    def sample(self, name: str) -> Any:
        """A row of the sample as a named tuple (fold and role are those of its first row).

        Raises:
            ValueError: there is no such sample; the message names the nearest.
        """
        found = self.samples[self.samples["sample"] == name]
        if found.empty:
            known = list(dict.fromkeys(self.samples["sample"]))
            message = closest("sample", name, known)
            raise ValueError(f"{self.path}: " + (message if len(known) <= 20 else message.split(" (known:")[0]))
        return next(found.itertuples(index=False))

    @property
    def multilabel(self) -> int:
        """The number of classes where a sample may have several of them, else 0."""
        return len(self.classes) if self.task == "multilabel" else 0

    def positive_index(self) -> int:
        """Index of the (first) declared positive class."""
        return self.classes.index(self.positive[0])


def samples_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows with the keys of `MANIFEST` as its table; `labels` is that one label where a row has none."""
    return _table(({**row, "labels": row.get("labels", str(row["label"]))} for row in rows), MANIFEST)


def masks_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows with the keys of `MASKS` as its table; `values` may be a list of ids."""
    return _table(
        ({**row, "values": row["values"] if isinstance(row["values"], str) else json.dumps(row["values"])} for row in rows), MASKS
    )


def write_manifest(dataset: Dataset, manifest_path: str | Path, masks_path: str | Path) -> None:
    """Checks the dataset and writes its two files, each under a temporary name first; the masks first, the manifest last.

    Raises:
        ValueError: see `Dataset.check`.
    """
    dataset.check()
    meta = {
        k: getattr(dataset, k)
        for k in ("name", "kind", "task", "classes", "positive", "mask_means", "split_unit", "source", "note")
    }
    write_table(masks_path, _cast(dataset.masks, MASKS), {"name": dataset.name})
    write_table(manifest_path, _cast(dataset.samples, MANIFEST), meta)


def read_manifest(path: str | Path) -> Manifest:
    """Reads a manifest; it knows nothing of masks.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: the file is damaged or was not written by `write_manifest`.
    """
    table, meta = read_table(path, MANIFEST, "`wsol prepare`")
    try:
        return Manifest(path=Path(path), samples=table, **meta)
    except TypeError as error:
        raise RuntimeError(
            f"{path}: its declarations are of another version ({error}); write it again with `wsol prepare`"
        ) from error


def write_table(path: str | Path, table: pd.DataFrame, meta: dict[str, Any]) -> None:
    """A parquet file with `meta` as JSON under the metadata key "wsol", written beside its place and then renamed."""
    import pyarrow as pa
    from pyarrow import parquet

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), _KEY: json.dumps(meta).encode()})
    with atomic(path) as temporary:
        parquet.write_table(arrow, temporary)


def read_table(path: str | Path, columns: Mapping[str, str], maker: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table written by `write_table`, and its `meta`; `maker` is the verb that the error messages name."""
    import pyarrow as pa
    from pyarrow import parquet

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; {maker} writes it")
    try:
        with open(path, "rb") as file:
            arrow = parquet.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise RuntimeError(f"{path}: cannot be read ({error}); delete it and write it again with {maker}") from error
    if list(arrow.column_names) != list(columns) or _KEY not in (arrow.schema.metadata or {}):
        raise RuntimeError(
            f"{path}: columns {list(columns)} and wsol's declarations expected, got {arrow.column_names}; write it again with "
            f"{maker}"
        )
    return _cast(arrow.to_pandas(), columns), json.loads(arrow.schema.metadata[_KEY])


def _table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    return _cast(pd.DataFrame(list(rows), columns=list(columns)), columns)


def _cast(table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    return table[list(columns)].astype(dict(columns)).reset_index(drop=True)


def _choice(kind: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ValueError(closest(kind, value, known))


def _check_samples(name: str, samples: pd.DataFrame, classes: int) -> None:
    missing = [c for c in MANIFEST if c not in samples.columns]
    if missing or samples.empty:
        raise ValueError(
            f"{name}: " + (f"the table of samples lacks the columns {missing}" if missing else "there are no samples")
        )
    blank = (
        samples[["sample", "slide", "path", "patient"]].isna().any().any()
        or (samples[["sample", "slide", "path"]] == "").any().any()
    )
    if blank:
        raise ValueError(f'{name}: sample, slide and path must be filled in every row ("" stands only for an unknown patient)')
    for role in samples["role"].unique():
        _choice("role", role, ROLES)
    if not samples["label"].isin(range(classes)).all():
        raise ValueError(f"{name}: labels must be 0 to {classes - 1}; got {sorted(samples['label'].unique())}")
    _first(
        ~samples.apply(_has_its_label, axis=1, classes=classes), samples, name, "has labels that are no classes or lack its label"
    )
    _first(samples.duplicated(["sample", "fold", "role"]), samples, name, "stands twice in one role of one fold")
    distinct = samples.groupby("sample")[list(_SAME)].transform("nunique").gt(1).any(axis=1)
    _first(distinct, samples, name, f"has rows that differ in {', '.join(_SAME)}")
    held = set(zip(*(samples.loc[samples["role"] == "valcl", c] for c in ("sample", "fold")), strict=True))
    outside = (samples["role"] == "valpx") & ~samples[["sample", "fold"]].apply(tuple, axis=1).isin(held)
    _first(outside, samples, name, "is valpx but not valcl: a mask may be opened only of a validation sample")


def _has_its_label(row: Any, classes: int) -> bool:
    held = row["labels"].split()
    return str(row["label"]) in held and len(set(held)) == len(held) and set(held) <= {str(c) for c in range(classes)}


def _check_masks(name: str, masks: pd.DataFrame, samples: set[str]) -> None:
    missing = [c for c in MASKS if c not in masks.columns]
    if missing:
        raise ValueError(f"{name}: the table of masks lacks the columns {missing}")
    _first(masks.duplicated("sample"), masks, name, "has two masks")
    _first(~masks["sample"].isin(samples), masks, name, "has a mask but no row in the manifest")
    _first(~masks["kind"].isin(["file", "empty"]), masks, name, "has a mask whose kind is neither file nor empty")
    _first(
        (masks["kind"] == "file") == (masks["mask"] == ""),
        masks,
        name,
        "has a mask of kind file without path, or of kind empty with one",
    )


def _first(bad: Any, table: pd.DataFrame, name: str, what: str) -> None:
    if bad.any():
        row = table[bad].iloc[0]
        raise ValueError(f"{name}: sample {row['sample']!r} {what} ({int(bad.sum())} such rows)")
