"""`from_module`: any classifier becomes a localizer, cut at a layer, without a change to it.

The module stays whole. To run what lies above a layer, it is called on a stand-in image, and a hook puts the given features in
the place of the layer's output; to run what lies below, a hook takes the output and ends the call. Hooks live inside one call.

What cannot be cut, and is refused by name:

- a layer that something passes by, as the skip connections of a U-Net do, or the shortcut of a residual block a layer inside it;
- a layer that runs several times in a pass (one `nn.ReLU` for all), or not at all (traced, scripted or compiled code runs no
  hooks of the parts: hand over the module as it was before);
- a layer whose output is a dict, or a tuple in which it is not the first;
- a module that mixes the images of a batch or draws at random in evaluation mode, or takes no gradient (`no_grad` inside).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from wsol.models.arrangement import Arrangement, Cells, Reshape, arrange, first, logits_of, main_tensor, replaced

if TYPE_CHECKING:
    from wsol.models.foreign import ForeignLocalizer

Normalize = tuple[float | Sequence[float], float | Sequence[float]] | Callable[[Tensor], Tensor] | None


def from_module(
    module: nn.Module,
    layer: str | Sequence[str],
    *,
    normalize: Normalize = None,
    reshape: Reshape = None,
    classes: int | None = None,
    size: int | tuple[int, int] = 224,
) -> ForeignLocalizer:
    """A localizer whose stages end at `layer` and whose head is all that `module` does above; in evaluation mode.

    The module itself is not changed: its train/eval flags, `requires_grad`, gradients and hooks are the same after each call. It
    always runs in evaluation mode here, whatever its flags say. It is shared, not copied: weights that change later count.

    Two different images, of smooth random color, are tried: `head(encode(x))` must say of both what `module(x)` says. With
    tokens left out by `reshape` (a class token), the head needs `Features.extra["beside"]`, which `encode` gives: gradient and
    image methods work, methods that ask for logits of changed features say that they do not. Of a module that reads the size of
    the image above the cut, features stand for the image of their grid that was encoded last: draw images of one size at a time.

    Args:
        module: normalized images (b, 3, H, W) -> logits (b, k), before softmax or sigmoid. Of a tuple the first counts, of a dict
            or an object its `logits`.
        layer: the name in `module.named_modules()` of the layer that ends the stage, or names in the order of the pass, fine ->
            coarse, one for each stage. The last is what the head reads: take the one before the pooling, after its activation.
        normalize: what the module wants done to images in [0, 1]: (mean, std), numbers or three of each; a function; None where
            it takes them as they are.
        reshape: for layers that put out no (b, c, h, w): (h, w) for tokens (b, n, c), of which the last h w are the cells row by
            row; or a function that moves the values to (b, c, h, w), such as `lambda t: t.permute(0, 3, 1, 2)`.
        classes: k to check for. 2 for a module with one logit s that goes into a sigmoid: the logits are then (-s/2, s/2), whose
            softmax is that sigmoid. 1 takes one logit as it is.
        size: side, or (H, W), in pixels of the images to try; a transformer wants its own.

    Raises:
        ValueError: an unknown layer (the nearest are named), one that cannot be cut there (layers that can are named), outputs
            or arguments that do not fit.
        TypeError: no `nn.Module`.

    Example:
        >>> net = from_module(resnet50, "layer4", normalize=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        >>> m = cam("layer-cam", net, images, targets)
    """
    from wsol.models.foreign import ForeignLocalizer
    from wsol.models.probe import inspect_parts, sides

    if not isinstance(module, nn.Module):
        raise TypeError(f"from_module wraps an nn.Module; got {type(module).__name__}")
    names = (layer,) if isinstance(layer, str) else tuple(layer)
    return ForeignLocalizer(inspect_parts(module, names, reshape, _normalizer(normalize), classes, sides(size)))


class StandIn(NamedTuple):
    """The image that the layers below a cut run on while their output is replaced.

    Attributes:
        each: one for each row, instead of one for all.
        size: (H, W); None: as large as the image that the features came from.
    """

    each: bool
    size: tuple[int, int] | None


class Parts:
    """A module cut behind some of its layers; part i ends with layer i, and one more part makes the logits.

    Attributes:
        module: the whole, as its owner left it.
        names: of the layers at the cuts, in the order of the pass.
        normalize: images in [0, 1] -> what the module takes.
        stand_ins: for each cut, what to run the module on from there.
        cells: image pixels per cell, (down, across), at each cut; None before that is known.
        classes: how many logits there are to be; None: as many as there are.
        density: values per image pixel in the largest output of any layer, between the cuts too; 0 before that is known.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        reshape: Reshape,
        normalize: Callable[[Tensor], Tensor],
        classes: int | None,
    ) -> None:
        self.module = module
        self.names = tuple(names)
        self.normalize = normalize
        self.classes = classes
        self.stand_ins = [StandIn(True, None) for _ in self.names]
        self.cells: list[tuple[float, float] | None] = [None for _ in self.names]
        self.density = 0.0
        self._reshape = reshape
        self._arranged: dict[tuple[int, tuple[int, ...]], Arrangement | None] = {}  # by number and shape of the output
        self._arrangements: dict[tuple[int, ...], Arrangement | None] = {}  # by number, c, h, w of the grid
        self._sizes: dict[tuple[int, ...], tuple[int, int]] = {}  # (number, h, w) -> (H, W) of the image seen last

    @property
    def dtype(self) -> torch.dtype:
        """Of the module's weights; float32 where it has none."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    def features(self, x: Tensor, beside: Tensor | None = None, *, start: int = 0, stop: int) -> list[Cells]:
        """Run parts `start`..`stop` and return the cells at their ends, which lie on one graph where there is one.

        Args:
            x: normalized images (b, 3, H, W) for `start` 0, else the grid (b, c, h, w) at the end of part `start - 1`.
            beside: what that part put out beside the grid, (b, m).
            start: the first part.
            stop: the last part, no later than the last cut.
        """
        seen: list[Cells] = []

        def take(number: int, output: Any) -> Any:
            if number < start:
                return output
            cells = self._split(number, main_tensor(output, self.names[number]))
            seen.append(cells)
            if start == 0:
                self._note_size(number, cells.grid, (x.shape[2], x.shape[3]))
            if number == stop:
                raise _Reached
            return replaced(output, self._join(number, cells)) if cells.grid.requires_grad else output

        try:
            self._call(x, beside, start, take)
        except _Reached:
            return seen
        raise ValueError(f"layer {self.names[stop]!r} was not run")

    def logits(self, x: Tensor, beside: Tensor | None = None, *, start: int) -> Tensor:
        """Run part `start` and all above it: (b, k), as the module puts them out. Arguments as for `features`."""
        return self._read(self._call(x, beside, start, lambda number, output: output))

    def whole(self, images: Tensor) -> Tensor:
        """The module on images in [0, 1], without any cut: logits (b, k)."""
        with evaluation(self.module):
            return self._read(self.module(self.normalize(images)))

    def census(self, images: Tensor) -> list[tuple[str, tuple[int, ...]]]:
        """(name, shape of the output) of every layer in the order in which they end, once for each time they run.

        The shape is () for what is no tensor and begins with none.
        """
        found: list[tuple[str, tuple[int, ...]]] = []

        def note(name: str) -> Callable[[Any], None]:
            return lambda output: found.append((name, tuple(getattr(first(output), "shape", ()))))

        with evaluation(self.module), _hooked(self.module, {name: note(name) for name, _ in self.module.named_modules() if name}):
            self.module(self.normalize(images))
        return found

    def takes_any_grid(self, grid: Tensor) -> bool:
        """Whether what lies above the last cut can be given a grid of another size: tokens in `reshape` have one form only."""
        return self._arrangements.get((len(self.names) - 1, *grid.shape[1:])) is None

    def _call(self, x: Tensor, beside: Tensor | None, start: int, take: Callable[[int, Any], Any]) -> Any:
        """Call the module; `take` gets the number and the output of each cut, and says what shall stand in its place."""
        given = None if start == 0 else self._join(start - 1, Cells(x, beside))
        image = x if start == 0 else self._stand_in(start - 1, x)

        def hook(number: int) -> Callable[[Any], Any]:
            return lambda output: replaced(output, given) if given is not None and number == start - 1 else take(number, output)

        with evaluation(self.module), _hooked(self.module, {name: hook(i) for i, name in enumerate(self.names)}):
            return self.module(image)

    def _stand_in(self, number: int, grid: Tensor) -> Tensor:
        each, size = self.stand_ins[number]
        height, width = grid.shape[2:]
        if size is None:
            down, across = self.cells[number] or (1, 1)
            size = self._sizes.get((number, height, width), (round(height * down), round(width * across)))
        return grid.new_zeros((len(grid) if each else 1, 3, *size))

    def _note_size(self, number: int, grid: Tensor, size: tuple[int, int]) -> None:
        """Keep which image made a grid of this size. Tokens say nothing of places: refuse a grid of another form."""
        height, width = grid.shape[2:]
        arrangement, cell = self._arrangements[number, *grid.shape[1:]], self.cells[number]
        if arrangement is not None and len(arrangement.shape) == 2 and cell is not None:
            down, across = size[0] / cell[0], size[1] / cell[1]
            if abs(down - height) >= 1 or abs(across - width) >= 1:
                raise ValueError(
                    f"reshape makes {height} x {width} cells of the tokens of layer {self.names[number]!r}, where an image of "
                    f"{size[0]} x {size[1]} px has {down:g} x {across:g}: give images of the size that `reshape` is for"
                )
        self._sizes[number, height, width] = size

    def _split(self, number: int, output: Tensor) -> Cells:
        shape = tuple(output.shape[1:])
        if (number, shape) not in self._arranged:
            self._arranged[number, shape] = arrange(shape, self._reshape, self.names[number])
        arrangement = self._arranged[number, shape]
        cells = Cells(output.clone(), None) if arrangement is None else arrangement.split(output)  # what follows may be in place
        self._arrangements[number, *cells.grid.shape[1:]] = arrangement
        return cells

    def _join(self, number: int, cells: Cells) -> Tensor:
        key = (number, *cells.grid.shape[1:])
        if key not in self._arrangements and self._reshape is not None:
            raise ValueError(
                f"features of shape {tuple(cells.grid.shape)} were never encoded, so the way back through `reshape` is unknown: "
                "encode an image of their size first"
            )
        arrangement = self._arrangements.get(key)
        if arrangement is None:
            return cells.grid.clone()
        rows = None if cells.beside is None else len(cells.beside)
        if len(arrangement.beside) and rows != len(cells.grid):
            raise ValueError(
                f"what lies above layer {self.names[number]!r} also reads what it puts out beside its grid (a class token), "
                f"as many rows as the features have; got {rows or 'none'} for {len(cells.grid)}. Take features from encode, with "
                "their `extra`; for a method that changes features, name a layer below the class token, or take a gradient method"
            )
        return arrangement.join(cells)

    def _read(self, output: Any) -> Tensor:
        logits = logits_of(output)
        if logits.ndim == 1:
            logits = logits[:, None]
        if logits.ndim != 2 or not logits.is_floating_point():
            raise ValueError(f"the module must put out logits (b, k); got {logits.dtype} {tuple(logits.shape)}")
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        if logits.shape[1] == 1 and self.classes == 2:
            return torch.cat([-logits / 2, logits / 2], 1)
        if self.classes is not None and logits.shape[1] != self.classes:
            raise ValueError(f"the module has {logits.shape[1]} logits, not classes={self.classes}")
        return logits


class _Reached(BaseException):
    """The last part that was asked for has ended. No `Exception`, so that no module catches it."""


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Inside, the module and all its parts are in evaluation mode; after, each is as it was."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def _hooked(module: nn.Module, hooks: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Inside, the output of each named layer goes through its hook; what the hook returns replaces it, unless that is None."""
    with ExitStack() as stack:
        for name, hook in hooks.items():
            handle = module.get_submodule(name).register_forward_hook(lambda _module, _inputs, output, hook=hook: hook(output))
            stack.callback(handle.remove)
        yield


def _normalizer(normalize: Normalize) -> Callable[[Tensor], Tensor]:
    """The function that `normalize` stands for."""
    if normalize is None:
        return lambda images: images
    if callable(normalize):
        return normalize
    mean, std = (torch.as_tensor(part, dtype=torch.float64).flatten() for part in normalize)
    if len(mean) not in (1, 3) or len(std) not in (1, 3) or not bool((std > 0).all()):
        raise ValueError(f"normalize must be (mean, std), a number or three each, std above 0; got {normalize}")
    return lambda images: (images - mean.to(images)[:, None, None]) / std.to(images)[:, None, None]
