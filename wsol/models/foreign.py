"""The localizer that `from_module` makes: the contract of `Localizer`, on a module that keeps its own shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn, Self, cast

import torch
from torch import Tensor, nn

from wsol.models.adapter import Parts
from wsol.models.backbones import Backbone
from wsol.models.heads import Head
from wsol.models.localizer import Features, Localizer, Prediction, _check_input
from wsol.models.probe import Findings


class ForeignBackbone(Backbone):
    """The module up to its last cut. It owns no parameters: they stay the module's, and are listed as such."""

    paper = "none: a module of your own"

    def __init__(self, parts: Parts, channels: tuple[int, ...]) -> None:
        nn.Module.__init__(self)  # not Backbone's: strides are found, not chosen
        self.parts = parts
        self.channels = channels
        self.strides = tuple(max(1, round(cell[0])) for cell in parts.cells if cell)
        self.freeze_bn = True

    @property
    def density(self) -> float:
        """Values per image pixel in the largest output of any layer of the module: a coarse cut says nothing of finer ones."""
        return self.parts.density

    def normalize(self, images: Tensor) -> Tensor:
        """What `from_module` was told."""
        return self.parts.normalize(images)

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Run one part of the module on the grid at the end of the one below it (on normalized images for part 0)."""
        return self.parts.features(x, start=number, stop=number)[0].grid

    @staticmethod
    def find_imagenet() -> Path:
        """A module of one's own has its own weights."""
        raise RuntimeError("a module of your own brings its own weights")

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """All of the module's, those above the cut too."""
        return self.parts.module.named_parameters(_below(prefix), recurse, remove_duplicate)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """`.to`, `.double` and the like reach the module: they are asked for by name."""
        self.parts.module._apply(fn, recurse)
        return super()._apply(fn, recurse)


class ForeignHead(Head):
    """All that the module does above its last cut."""

    paper = "none: the head of your own module"

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """Logits, float32 at least whatever autocast says.

        Raises:
            ValueError: the module reads more than the grid, and `f.extra` lacks it.
        """
        with torch.autocast(f.last.device.type, enabled=False):
            x, beside = (None if part is None else _plain(part, self.parts.dtype) for part in (f.last, f.extra.get("beside")))
            return Prediction(self.parts.logits(cast(Tensor, x), beside, start=len(self.parts.names)))


class ForeignGap(ForeignHead):
    """A head that was found to be global average pooling and a linear layer: it has class maps, and closed forms hold.

    For features F: class map M_k(p) = W_k . F(p), logit_k = mean_p M_k(p) + B_k. The module itself is not called for that.
    """

    affine = True

    def __init__(self, parts: Parts, linear: str) -> None:
        """`linear` is the name of the layer in the module."""
        super().__init__(parts)
        self.linear = linear

    @property
    def weight(self) -> Tensor:
        """(k, c), as it is in the module now."""
        weight = cast(Tensor, self._layer.weight).flatten(1)
        return self._both(weight)

    @property
    def bias(self) -> Tensor:
        """(k,); zeros where the layer has none."""
        bias = self._layer.bias
        return self._both(cast(Tensor, self._layer.weight).new_zeros(len(self._layer.weight)) if bias is None else bias)

    def class_maps(self, f: Features) -> Tensor:
        """M = W F, (b, k, h, w), without bias; float32 at least."""
        with torch.autocast(f.last.device.type, enabled=False):
            weight = self.weight if self.parts.dtype == torch.float64 else self.weight.float()
            return torch.einsum("kc,bchw->bkhw", weight, _plain(f.last, weight.dtype))

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """Logits and class maps, as a `Gap` head gives them."""
        maps = self.class_maps(f)
        with torch.autocast(maps.device.type, enabled=False):
            return Prediction(maps.mean((2, 3)) + self.bias.to(maps.dtype), maps)

    @property
    def _layer(self) -> Any:
        return self.parts.module.get_submodule(self.linear)

    def _both(self, x: Tensor) -> Tensor:
        """(-s/2, s/2) for the one logit of a sigmoid."""
        return torch.cat([-x / 2, x / 2]) if len(x) == 1 and self.parts.classes == 2 else x


class ForeignLocalizer(Localizer):
    """A localizer around a module that keeps its own shape.

    It cannot be saved: a foreign module has no recipe. Save the module's weights your way, and wrap it again.
    """

    def __init__(self, found: Findings) -> None:
        parts = found.parts
        head = ForeignHead(parts) if found.linear is None else ForeignGap(parts, found.linear)
        super().__init__(ForeignBackbone(parts, found.channels), head, recipe=None)
        self.parts = parts
        self.train(False)

    def encode(self, images: Tensor, *, leaf: int | None = None, start: int = 0) -> Features:
        """The stages, as `Localizer.encode` gives them, in one pass of the module (two where a finer stage is the leaf).

        `extra["beside"]` (b, m) holds what the last layer puts out beside its grid, where it does.
        """
        depth = len(self.backbone.channels)
        if not 0 <= start < depth:
            raise ValueError(f"start must be a stage in 0..{depth - 1}; got {start}")
        leaf = None if leaf is None else self.stage_number(leaf)
        if leaf is not None and leaf < start:
            raise ValueError(f"the leaf stage {leaf} lies below the stage {start} that encoding starts at")
        channels = 3 if start == 0 else self.backbone.channels[start - 1]
        _check_input(images, channels, "images in [0, 1]" if start == 0 else f"the output of stage {start - 1}")
        x = self.backbone.normalize(images) if start == 0 else images
        with nullcontext() if leaf is None else torch.no_grad():
            cells = self.parts.features(x, start=start, stop=depth - 1 if leaf is None else leaf)
        if leaf is not None:
            cells[-1] = cells[-1]._replace(grid=cells[-1].grid.detach().requires_grad_(True))
            if leaf < depth - 1:
                cells += self.parts.features(*cells[-1], start=leaf + 1, stop=depth - 1)
        beside = cells[-1].beside
        return Features(tuple(part.grid for part in cells), {} if beside is None else {"beside": beside})

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The module's."""
        return self.parts.module.named_parameters(_below(prefix), recurse, remove_duplicate)

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: weights that belong to the module are saved, loaded and randomized there."""
        raise ValueError("the weights of a foreign module are its own: take module.state_dict(), and wrap the module again")


def _below(prefix: str) -> str:
    return f"{prefix}.module" if prefix else "module"


def _plain(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In the module's precision, and fit for a graph where it was made under inference mode."""
    x = x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x
    return x.to(dtype)
