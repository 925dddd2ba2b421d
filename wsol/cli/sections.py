"""What the sections of a study are made of: their common base, and numbers within bounds that catch a slip of the keyboard."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

V = TypeVar("V")

MOST = 1_000_000
"""No count of passes, samples or replicates goes beyond it."""

LARGEST_PX = 16384
"""Longest side of an image or tile: one of float32 takes 3 GB before a network has looked at it."""

FINEST = 0.02
"""um per px below which nothing is scanned: a tenth of what a 60x objective resolves."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
Count = Annotated[int, Field(ge=1, le=MOST)]
Some = Annotated[int, Field(ge=0, le=MOST)]
Megabytes = Annotated[int, Field(ge=0, le=100 * MOST)]
Side = Annotated[int, Field(ge=32, le=LARGEST_PX)]
Mpp = Annotated[float, Field(ge=FINEST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""As numpy's oldest generators take it; torch overflows at 2**64, and some add to a seed."""


class Section(BaseModel):
    """A part of the configuration that refuses keys it does not know, and numbers that are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _once(values: list[V]) -> list[V]:
    """The list, unless something stands in it twice: the same files would be written by two jobs."""
    if twice := [v for i, v in enumerate(values) if v in values[:i]]:
        raise ValueError(f"{twice[0]!r} stands twice in {values}; keep one")
    return values


Once = AfterValidator(_once)


def refuse_odd_path(path: str) -> str:
    """A folder's name, unless shells or Snakemake would read it as something else.

    Raises:
        ValueError: it is empty, or holds a control character, a quote, a backslash or a brace.
    """
    odd = sorted({c for c in path if not c.isprintable() or c in "'\"`\\{}"})
    if odd or not path.strip():
        raise ValueError(
            f"{path!r} {'holds ' + ' '.join(map(repr, odd)) if odd else 'is blank'}; name a folder without quotes, braces, "
            "backslashes, line breaks and other control characters"
        )
    return path
