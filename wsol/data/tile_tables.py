"""Tile tables as `wsol tile` writes them, one per slide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def read_tables(tables: str | Path | Mapping[str, pd.DataFrame], samples: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The tile table of each slide, from a folder as `wsol tile` fills it, or out of the tables given.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: a table is missing or damaged.
    """
    return {sample: _table(tables, sample) for sample in samples}


def _table(tables: str | Path | Mapping[str, pd.DataFrame], sample: str) -> pd.DataFrame:
    import pandas as pd

    if isinstance(tables, Mapping):
        if sample not in tables:
            raise ValueError(f"no tile table of slide {sample!r}; there are {len(tables)} tables")
        return tables[sample]
    path = Path(tables) / f"{sample}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"no tile table {path} of slide {sample!r}; run `wsol tile` for it")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{path}: cannot be read ({error}); delete it and run `wsol tile` again") from error


def agreed(tables: Mapping[str, pd.DataFrame], name: str) -> Any:
    """The value of `name` that all tables were made with."""
    values = {table.attrs.get(name) for table in tables.values() if not table.empty}
    if len(values) != 1 or None in values:
        raise ValueError(f"the tile tables do not agree on {name}: {values}; tile all slides with one setting, or give {name}=")
    return values.pop()
