"""The section `tile` of a study: how slides are cut, and what tiles are flagged for. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from wsol.cli.sections import LARGEST_PX, Mpp, Section, Side


class Quality(Section):
    """When a tile is flagged: out of focus, under a marker, in a fold. Flags stand in its table and color its picture."""

    blur: float = Field(
        40.0, ge=0, description="blurred below this variance of the Laplacian; at 1 um per px sharp H&E has 300 and more"
    )
    sharpness_mpp: Mpp | None = Field(
        1.0, description="um per px at which blur is measured, for which every tile is read; null: not measured"
    )
    pen: float = Field(0.1, gt=0, le=1, description="flagged from this share of marker or black border in a tile")
    fold: float = Field(0.1, gt=0, le=1, description="flagged from this share of folded tissue in a tile")
    drop: list[Literal["blur", "pen", "fold"]] = Field(
        default_factory=list, description="flags that take a tile out; empty: flagged tiles stay"
    )

    @model_validator(mode="after")
    def _drops_what_it_measures(self) -> Quality:
        if "blur" in self.drop and self.sharpness_mpp is None:
            raise ValueError("drop: blur needs sharpness_mpp, at which it is measured; give it, e.g. 1.0")
        return self


class Tile(Section):
    """How slides are cut; ignored for image datasets."""

    mpp: Mpp = Field(1.0, description="um per px at which tiles are read, 0.02 or more")
    tile_px: Side = Field(256, description="side of a tile in px at `mpp`; a multiple of 32, at most 16384")
    tile_um: float | None = Field(None, gt=0, description="side of a tile in um; overrides tile_px")
    overlap: float = Field(
        0.0, ge=0, lt=1,
        description="share of a tile that the next covers again: 0, 1/2, 2/3, 3/4 ... (maps are made of every k-th tile)",
    )  # fmt: skip
    edge: Literal["pad", "drop", "shift"] = Field(
        "pad", description="tiles at the right and lower edge: pad (white beyond the slide), drop, or shift (moved inside)"
    )
    align: bool = Field(
        True, description="let a tile's side change by up to 1 % to fit the grid in which the slide is stored: faster to read"
    )
    min_tissue: float = Field(0.2, ge=0, le=1, description="least fraction of tissue in a tile that is kept")
    tissue_mpp: Mpp = Field(8.0, description="um per px of the tissue mask; finer costs more and gains nothing")
    labels: Literal["none", "annotation"] = Field(
        "none",
        description="none: tiles are known by their slide's label only; annotation: tiles of positive slides are labeled by "
        "their annotated area (the slide's `mask` is opened), for models with `tiles: labeled`",
    )
    foreground: float = Field(0.2, gt=0, le=1, description="least share of annotated area of a positive tile (CAMELYON16: 0.2)")
    qc: Quality = Quality()
    features: str | None = Field(
        None, description="folder with features of other encoders (SLIDE.h5 of TRIDENT, CLAM, `wsol embed`), whose tiles are "
        "taken as they are, for models with `backbone: stored:WIDTH`",
    )  # fmt: skip
    strict: bool = Field(
        False, description="a slide that cannot be read or has no tissue stops the study, instead of being left out and reported"
    )

    @field_validator("overlap")
    @classmethod
    def _meets_the_lattice(cls, overlap: float) -> float:
        times = 1 / (1 - overlap)
        if abs(times - round(times)) > 0.01:
            raise ValueError(
                f"{overlap} leaves no tiles side by side, of which maps are made; take 0, 0.5, 0.667, 0.75 or another 1 - 1/k"
            )
        return 1 - 1 / round(times)

    @model_validator(mode="after")
    def _fits_into_memory(self) -> Tile:
        if self.side_px > LARGEST_PX:
            raise ValueError(f"tile_um: {self.tile_um:g} um at mpp {self.mpp:g} are {self.side_px} px, at most {LARGEST_PX} fit")
        return self

    @property
    def side_px(self) -> int:
        """Side of a tile in px at `mpp`, rounded to a multiple of 32."""
        side = self.tile_px if self.tile_um is None else self.tile_um / self.mpp
        return max(32, round(side / 32) * 32)
