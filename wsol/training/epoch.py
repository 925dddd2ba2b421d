"""One pass over the batches: the step, and the errors that say where it went wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsol.training.ema import Ema
from wsol.training.optimizer import set_rate
from wsol.training.parallel import ALONE, Ranks
from wsol.training.progress import Display
from wsol.training.schedule import warmup_cosine

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer
    from wsol.training.strategies.base import Strategy


NO_BATCHES = "there are no training batches; check the split and its labels"
ADVICE = "look at these samples first; else lower lr, raise warmup, set clip, or turn bf16 off"


@dataclasses.dataclass(frozen=True)
class Step:
    """How a step is taken; see `fit` for the meaning of the fields."""

    device: torch.device
    epochs: int
    warmup: float
    clip: float | None
    bf16: bool
    channels_last: bool
    steps: int | None
    accumulate: int = 1
    ranks: Ranks = ALONE

    def weight(self, batch: Batch) -> float:
        """What a batch counts within its step: its labels; 1 where it is the whole step, whose loss then is left as it is."""
        return 1.0 if self.accumulate == self.ranks.count == 1 else float(len(batch.labels))


@dataclasses.dataclass
class Tally:
    """What was lost on what was seen in an epoch; those of several processes add up.

    Attributes:
        sums: of each part of the loss, weighed by labels.
        seen: labels.
        labels: classes among them.
    """

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    seen: int = 0
    labels: set[int] = dataclasses.field(default_factory=set)

    def add(self, other: Tally) -> None:
        """Count what `other` counted, too."""
        for name, value in other.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.seen += other.seen
        self.labels |= other.labels

    def mean(self) -> float:
        """The loss per label; 0 before anything was seen."""
        return sum(self.sums.values()) / max(self.seen, 1)


def train_epoch(
    net: Localizer,
    strategy: Strategy,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    average: Ema | None,
    generator: torch.Generator,
    show: Display,
    *,
    epoch: int,
    how: Step,
) -> dict[str, float]:
    """Train on each batch once and return the mean losses: `train_loss`, and `train_<part>` where there are several parts.

    Raises:
        ValueError: no batches, or (first epoch, supervision by labels) a single class.
        RuntimeError: a loss or a gradient is not finite, or memory ran out.
    """
    steps = -(-(_length(batches) if how.steps is None else how.steps) // how.accumulate)
    net.train()
    strategy.train()
    own = Tally()
    for step, group in enumerate(_grouped(batches, how.accumulate), start=1):
        place = f"epoch {epoch}/{how.epochs}, step {step}/{steps}"
        done = min((step - 0.5) / steps, 1.0)  # images of mixed sizes may come in more batches than the length says
        set_rate(optimizer, warmup_cosine((epoch - 1 + done) / how.epochs, how.warmup))
        optimizer.zero_grad(set_to_none=True)
        weight, samples = 0.0, []
        for batch in group:
            with _memory_named(batch, place, how.device):
                own.add(_learn(net, strategy, batch, generator, epoch, how, place))
            weight += how.weight(batch)
            samples += batch.samples
        with _memory_named(batch, place, how.device):
            _average_gradient(optimizer, weight, how, place, samples)
            optimizer.step()
        if average is not None:
            average.update(net)
        show.step(epoch, step, steps, own.mean())
    tally = Tally()
    for other in how.ranks.gather(own):
        tally.add(other)
    if tally.seen == 0:
        raise ValueError(NO_BATCHES)
    if epoch == 1 and strategy.supervision == "labels" and len(tally.labels) == 1:
        raise ValueError(
            f"all {tally.seen} training labels are class {tally.labels.pop()}; training needs at least two classes: check labels "
            "and split"
        )
    parts_too = {f"train_{name}": value / tally.seen for name, value in tally.sums.items()} if len(tally.sums) > 1 else {}
    return {"train_loss": tally.mean(), **parts_too}


def _grouped(batches: Iterable[Batch], size: int) -> Iterator[Iterator[Batch]]:
    """The batches of each step as they come; the last step may have fewer than `size`. A step is used up before the next."""
    stream = iter(batches)
    for first in stream:
        yield chain([first], islice(stream, size - 1))


def _learn(
    net: Localizer, strategy: Strategy, batch: Batch, generator: torch.Generator, epoch: int, how: Step, place: str
) -> Tally:
    """Add the gradient of a batch, times its weight, to those of its step; nothing for an empty share.

    Raises:
        RuntimeError: the loss is not finite. The weights are still those of the step before.
    """
    if len(batch.labels) == 0:
        return Tally()
    parts = _losses(net, strategy, batch, generator, epoch, how)
    loss = torch.stack([value.float() for value in parts.values()]).sum()
    if not bool(loss.isfinite()):
        each = ", ".join(f"{name} {float(value.detach()):g}" for name, value in parts.items())
        raise RuntimeError(f"the loss is not finite ({each}) at {place}, samples {_names(batch.samples)}: {ADVICE}")
    (loss * how.weight(batch)).backward()
    n = len(batch.labels)
    return Tally({name: n * float(value.detach()) for name, value in parts.items()}, n, set(batch.labels.flatten().tolist()))


def _losses(
    net: Localizer, strategy: Strategy, batch: Batch, generator: torch.Generator, epoch: int, how: Step
) -> dict[str, Tensor]:
    """The strategy's losses of a batch, computed on the device under autocast."""
    layout = torch.channels_last if how.channels_last else torch.contiguous_format
    tensors = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch) if isinstance(getattr(batch, f.name), Tensor)}
    moved: dict[str, Any] = {name: value.to(how.device, non_blocking=True) for name, value in tensors.items()}
    moved["images"] = moved["images"].contiguous(memory_format=layout)
    with torch.autocast(how.device.type, torch.bfloat16, enabled=how.bf16):
        losses: dict[str, Tensor] = strategy(net, dataclasses.replace(batch, **moved), generator, epoch)
    return losses


def _average_gradient(optimizer: torch.optim.Optimizer, weight: float, how: Step, place: str, samples: Sequence[str]) -> None:
    """Let the gradient be the mean over all labels of the step, on all processes, no longer than `clip`.

    Raises:
        RuntimeError: its norm is not finite. The weights are still those of the step before.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total = how.ranks.add_gradients(parameters, weight)
    parameters = [p for p in parameters if p.grad is not None]
    slopes = [p.grad for p in parameters if p.grad is not None]
    if total != 1:
        torch._foreach_div_(slopes, total)
    norm = torch.nn.utils.get_total_norm(slopes)
    if not bool(norm.isfinite()):
        raise RuntimeError(f"the gradient is not finite at {place}, samples {_names(samples)}: {ADVICE}")
    if how.clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, how.clip, norm)


def _length(batches: Iterable[Batch]) -> int:
    """The number of batches, which the schedule needs beforehand."""
    if not isinstance(batches, Sized):
        raise TypeError(
            f"batches(epoch, generator) must return something with a length, or pass steps=; got {type(batches).__name__}"
        )
    if len(batches) == 0:
        raise ValueError(NO_BATCHES)
    return len(batches)


@contextmanager
def _memory_named(batch: Batch, place: str, device: torch.device) -> Iterator[None]:
    """Where torch (CUDA, or the CPU's allocator) or Python runs out of memory, say on what, and what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("not enough memory", "can't allocate memory", "out of memory")
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error) for word in words)):
            raise
        b, _, height, width = batch.images.shape
        bags = "" if batch.groups is None else f" ({len(batch.labels)} bags: lower tiles_per_bag too)"
        raise RuntimeError(
            f"out of memory on {device} at {place} with {b} images of {height} x {width} px{bags}; lower batch_size or crop "
            "(memory grows with batch_size * crop^2; half the batch_size with accumulate: 2 is the same step)"
        ) from error


def _names(samples: Sequence[str]) -> str:
    """Up to sixteen distinct names."""
    names = list(dict.fromkeys(samples))
    return ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")
