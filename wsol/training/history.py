"""One row per epoch, in a file that is whole at any moment."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, float]
"""epoch, train losses, lr, seconds, validation metrics; numbers only."""


def write_history(rows: Sequence[Row], path: Path) -> None:
    """Write all rows as CSV under a temporary name, then rename. Columns are those of all rows, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
