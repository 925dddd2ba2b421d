"""Does a map depend on what was learned: weights are randomized block by block, and the map has to change.

Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018. A map that looks the same when the weights are noise shows the
image, not the reasons of the classifier.

Two differences to the authors' code: a block is every parameter and statistic of its modules (they match substrings of variable
names and leave batch-norm statistics as they are), and the class of a map is the caller's to fix (they draw the class that the
broken net predicts).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from wsol.robustness.similarity import SIDE, hog_correlation, spearman, structural_similarity

Fresh: TypeAlias = Callable[[torch.Generator], nn.Module]
Step: TypeAlias = tuple[str, nn.Module]

UNCHANGED = 0.99
"""Maps this alike at any one step were not touched by weights that the prediction depends on. On an EfficientNet-Lite0 tuned on
GlaS (8 images, 2 draws) maps under a new head had 0.3 and 0.5 (CAM), 0.90 and 0.92 (Layer-CAM, which hardly reads it), and
exactly 1 (the control)."""

SIMILAR = 0.5
"""Maps this alike in the mean over the steps of the cascade were hardly touched by any. There: CAM 0.1, Layer-CAM 0.3, the first
principal component 0.4, edges 1."""


@dataclass(frozen=True, eq=False)
class SanityCurve:
    """How alike the maps of a net and of its randomized copies are; arrays are float64 (blocks, samples).

    Attributes:
        blocks: what was randomized at each step; in a cascade, with everything before it.
        spearman: of the signed maps, at their own resolution; NaN where a map is constant.
        absolute: the same of the absolute maps.
        ssim: structural similarity.
        hog: correlation of gradient histograms; NaN where a map is constant.
    """

    blocks: tuple[str, ...]
    spearman: NDArray[np.float64]
    absolute: NDArray[np.float64]
    ssim: NDArray[np.float64]
    hog: NDArray[np.float64]

    @property
    def undefined(self) -> int:
        """How many pairs of maps have no rank correlation, since one of them is constant."""
        return int(np.isnan(self.spearman).sum())

    def medians(self, name: str = "spearman") -> NDArray[np.float64]:
        """Median over the samples at each step, (blocks,), undefined ones left out; NaN where all are."""
        values = getattr(self, name)
        return np.array([np.median(row[~np.isnan(row)]) if not np.isnan(row).all() else np.nan for row in values])

    @property
    def verdict(self) -> str:
        """Fails if the maps stay alike although weights are gone, else passes; undefined if no step can be compared.

        By the signed rank correlation, median over samples: fails with `UNCHANGED` at any step, or `SIMILAR` in the mean over the
        steps. The absolute maps, SSIM and HOG do not decide: any two maps of one image that are smooth, or large where there is
        tissue, are alike by them. The rule is ours; the paper reads its curves by eye.
        """
        steps = self.medians()
        defined = steps[~np.isnan(steps)]
        if not defined.size:
            return "undefined"
        return "fails" if defined.max() >= UNCHANGED or defined.mean() >= SIMILAR else "passes"


def blocks(net: nn.Module) -> list[str]:
    """The blocks of a net, from the logits down to the first convolution.

    A localizer has `head`, its stages from deep to shallow (`stage-4` ... `stage-1`), and `stem`, the first stage. Of any other
    module they are the children in reverse order: write them down in the order in which they run, as `nn.Sequential` does.

    Raises:
        ValueError: a parameter or statistic that lies in no block.
    """
    return list(_members(net))


def cascading(net: nn.Module, generator: torch.Generator, *, fresh: Fresh | None = None) -> Iterator[Step]:
    """The net with its head randomized, with head and last stage randomized, ... down to the stem.

    Every step starts from the trained weights and draws anew; `net` itself is not touched.

    Args:
        net: the trained net, in evaluation mode if maps are to be drawn: copies are in the mode of the net.
        generator: draws the weights; same state, same copies. Never one in the state that training started from: the net would
            come back as it was before training, and a head that was tuned on a few images lies close to that.
        fresh: makes an untrained net of the same architecture, the truest initializer. Without it each module's own
            `reset_parameters` is called; parameters of modules without one become Kaiming-uniform (as those of `nn.Linear`) from
            two dimensions on and 0 where they are called a bias.

    Yields:
        (name of the block added, randomized copy).

    Raises:
        ValueError: a parameter or statistic that lies in no block, or that has no initializer.
    """
    members = _members(net)
    keys: list[str] = []
    for name, own in members.items():
        keys += own
        yield name, _randomized(net, keys, generator, fresh)


def independent(net: nn.Module, generator: torch.Generator, *, fresh: Fresh | None = None) -> Iterator[Step]:
    """The net with one block randomized and all others as trained, from the head down to the stem; arguments as `cascading`.

    Raises:
        ValueError: see `cascading`.
    """
    for name, own in _members(net).items():
        yield name, _randomized(net, own, generator, fresh)


def sanity_curve(
    draw: Callable[[Any], Sequence[ArrayLike]],
    nets: Iterable[tuple[str, Any]],
    reference: Sequence[ArrayLike],
    *,
    side: int = SIDE,
) -> SanityCurve:
    """Similarity of the maps of every randomized net with those of the trained one.

    Args:
        draw: net -> raw, signed maps (h, w), one per sample. It decides about the class: give it the classes that the trained net
            was drawn for, so that weights are all that changes.
        nets: of `cascading` or `independent`, one exists at a time; or (block, whatever `draw` takes).
        reference: the maps of the trained net.
        side: see `similarity`.

    Raises:
        ValueError: no step, no sample, maps of other number or size than the reference, NaN.
    """
    steps = [(name, _alike(draw(net), reference, side)) for name, net in nets]
    if not steps:
        raise ValueError("no randomized net to compare with: `nets` is empty")
    table = np.stack([values for _, values in steps])
    return SanityCurve(tuple(name for name, _ in steps), *(table[..., i] for i in range(4)))


def compare_maps(maps: Sequence[ArrayLike], reference: Sequence[ArrayLike], name: str, *, side: int = SIDE) -> SanityCurve:
    """The curve of one step: e.g. maps of a net trained on shuffled labels against those of the net trained on true ones.

    Raises:
        ValueError: see `sanity_curve`.
    """
    return sanity_curve(lambda found: found, [(name, maps)], reference, side=side)


def _alike(maps: Sequence[ArrayLike], reference: Sequence[ArrayLike], side: int) -> NDArray[np.float64]:
    """The four similarities of each sample, (n, 4)."""
    if len(maps) != len(reference) or not len(reference):
        raise ValueError(f"need one map per sample of the reference, at least one; got {len(maps)} for {len(reference)}")
    return np.array(
        [
            [
                spearman(a, b),
                spearman(a, b, absolute=True),
                structural_similarity(a, b, side=side),
                hog_correlation(a, b, side=side),
            ]
            for a, b in zip(maps, reference, strict=True)
        ]
    )


def _members(net: Any) -> dict[str, list[str]]:
    """Block -> its keys in the state dict, top first."""
    if hasattr(net, "encode") and hasattr(net, "backbone") and hasattr(net, "head"):
        owners = {"head": {f"head.{name}".rstrip(".") for name, _ in net.head.named_modules()}, **_stages(net)}
    else:
        children = [(name, child) for name, child in net.named_children() if child.state_dict()]
        owners = {
            name: {f"{name}.{inner}".rstrip(".") for inner, _ in child.named_modules()} for name, child in reversed(children)
        }
    found: dict[str, list[str]] = {name: [] for name in owners}
    for key in net.state_dict():
        owner = key.rpartition(".")[0]
        home = next((name for name, modules in owners.items() if owner in modules), None)
        if home is None:
            raise ValueError(
                f"{key} lies in no block ({', '.join(owners)}): it would stay as trained; put it into a module of one"
            )
        found[home].append(key)
    return found


def _stages(net: Any) -> dict[str, set[str]]:
    """Stage -> names of the modules it runs, deep to shallow: those whose parameters its output depends on."""
    probe = copy.deepcopy(net).cpu().float().eval().requires_grad_(True)
    names, parameters = zip(*probe.backbone.named_parameters(prefix="backbone"), strict=True)
    depth = len(probe.backbone.channels)
    owners = {}
    for number in reversed(range(depth)):
        side = max(8, 64 >> number)
        x = torch.full((1, probe.backbone.channels[number - 1] if number else 3, side, side), 0.5)
        with torch.inference_mode(False), torch.enable_grad():
            used = torch.autograd.grad(probe.backbone.stage(number, x).sum(), parameters, allow_unused=True)
        owners[f"stage-{number}" if number else "stem"] = {
            name.rpartition(".")[0] for name, slope in zip(names, used, strict=True) if slope is not None
        }
    return owners


def _randomized(net: nn.Module, keys: Sequence[str], generator: torch.Generator, fresh: Fresh | None) -> nn.Module:
    """A copy of the net whose entries `keys` are those of an untrained one."""
    changed = copy.deepcopy(net)
    if fresh is None:
        _reset(changed, {key.rpartition(".")[0] for key in keys}, generator)
        return changed
    source, target = fresh(generator).state_dict(), changed.state_dict()
    for key in keys:
        target[key].copy_(source[key])
    return changed


def _reset(net: nn.Module, names: set[str], generator: torch.Generator) -> None:
    """Put the modules `names` of the net, with their parameters and statistics, at a new start."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # initializers draw from the global generator: lend it to them
        torch.manual_seed(seed)
        for name, module in net.named_modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if name in names and reset is not None:
                reset()
            elif name in names:
                _reset_bare(name, module)


def _reset_bare(name: str, module: nn.Module) -> None:
    """Parameters of a module without an initializer of its own."""
    for own, value in module.named_parameters(recurse=False):
        if value.ndim > 1:
            nn.init.kaiming_uniform_(value, a=math.sqrt(5))
        elif "bias" in own:
            nn.init.zeros_(value)
        else:
            raise ValueError(
                f"no initializer for {name}.{own} {tuple(value.shape)}: give {type(module).__name__} a reset_parameters(), "
                "or pass fresh="
            )
