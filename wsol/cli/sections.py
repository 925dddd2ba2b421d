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
    """A folder's name that stands in shell commands as it is.

    Raises:
        ValueError: it is empty, or holds a blank or a character that shells or Snakemake read as something else.
    """
    odd = sorted({c for c in path if not (c.isalnum() or c in "._-+=@,/")})
    if odd or not path:
        raise ValueError(
            f"{path!r} {'holds ' + ' '.join(map(repr, odd)) if odd else 'is empty'}; it stands in shell commands: name a folder "
            "by letters, digits and . _ - + = @ , / only"
        )
    return path
