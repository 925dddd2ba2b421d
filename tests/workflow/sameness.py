"""Whether two runs of one study gave the same: file by file, without what depends on the clock or on the machine."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import tifffile

CLOCK = {"seconds", "created", "code", "badge_code"}
"""Names of values that say when, how fast, or by which commit (which others may make between two runs)."""

UNCOMPARED = ("benchmark/", "log/")
"""How long jobs took; the MLflow mirror, whose names are random."""


def facts(results: Path) -> dict[str, str]:
    """Path below `results` -> digest of what the file says."""
    files = (path for path in sorted(results.rglob("*")) if path.is_file())
    names = {str(path.relative_to(results)): path for path in files}
    return {name: digest(path, results) for name, path in names.items() if not name.startswith(UNCOMPARED)}


def digest(path: Path, results: Path) -> str:
    """Of the content of one file, by its kind."""
    if path.suffix == ".json":
        said = json.dumps(timeless(json.loads(path.read_text())), sort_keys=True)
        content = re.sub(r"\d[\d.]*\+g[0-9a-f]+(\.dirty)?", "commit", said.replace(str(results), "")).encode()
    elif path.suffix == ".parquet":
        table = pd.read_parquet(path)
        kept = table[[c for c in table.columns if c not in CLOCK]]
        content = (kept.to_json() + json.dumps(timeless(table.attrs), sort_keys=True, default=str)).encode()
    elif path.suffix == ".h5":
        content = maps(path)
    elif path.suffix == ".csv":
        table = pd.read_csv(path) if path.stat().st_size else pd.DataFrame()
        content = table[[c for c in table.columns if c not in CLOCK]].to_csv().encode()
    elif path.name.endswith(".ome.tiff"):
        content = tifffile.imread(path).tobytes()  # its header has a date
    elif path.suffix == ".html":
        content = b"page"  # of the numbers that are compared above; it has its own tests
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def timeless(value: object) -> object:
    """Plain JSON without the values that say when or how fast, also within JSON that stands in a string."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in CLOCK}
    if isinstance(value, list):
        return [
            timeless(v) for v in value if not (isinstance(v, dict) and re.search("code version|no commit", str(v.get("text"))))
        ]
    if isinstance(value, str) and value.startswith(("{", "[")):
        return timeless(json.loads(value))
    return value


def maps(path: Path) -> bytes:
    """All datasets and attributes of a map file."""
    parts: list[bytes] = []

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        told = {k: v for k, v in item.attrs.items() if k not in CLOCK}
        plain = {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in told.items()}
        parts.append(f"{name} {json.dumps(timeless(plain), sort_keys=True, default=str)}".encode())
        if isinstance(item, h5py.Dataset):
            parts.append(np.asarray(item[()]).tobytes())

    with h5py.File(path) as file:
        note("", file)
        file.visititems(note)
    return b"\n".join(parts)


def orphans(folder: Path) -> list[str]:
    """Files that nobody asked for: temporary names that a killed writer left behind."""
    pattern = re.compile(r"^\..+\.part|\.tmp|\.partial$")
    files = [path for path in folder.rglob("*") if path.is_file() and ".snakemake" not in path.parts]
    return sorted(str(path.relative_to(folder)) for path in files if pattern.search(path.name))
