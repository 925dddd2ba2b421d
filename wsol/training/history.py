"""One row per epoch, in a file that is whole at any moment."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from wsol._files import atomic

Row = dict[str, float]
"""epoch, train losses, lr, seconds, validation metrics; numbers only."""


def write_history(rows: Sequence[Row], path: Path) -> None:
    """Write all rows as CSV under a temporary name, then rename. Columns are those of all rows, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
