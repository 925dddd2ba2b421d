"""One pass over the batches: the step, and the errors that say where it went wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsol.training.ema import Ema
from wsol.training.optimizer import set_rate
from wsol.training.progress import Display
from wsol.training.schedule import warmup_cosine

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer
    from wsol.training.strategies.base import Strategy


NO_BATCHES = "there are no training batches; check the split and its labels"


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
        RuntimeError: see `_backward` and `_memory_error`.
    """
    steps = _length(batches) if how.steps is None else how.steps
    net.train()
    strategy.train()
    sums: dict[str, float] = {}
    labels: set[int] = set()
    total, seen, step = 0.0, 0, 0
    for step, batch in enumerate(batches, start=1):
        place = f"epoch {epoch}/{how.epochs}, step {step}/{steps}"
        done = min((step - 0.5) / steps, 1.0)  # images of mixed sizes may come in more batches than the length says
        set_rate(optimizer, warmup_cosine((epoch - 1 + done) / how.epochs, how.warmup))
        try:
            parts = _losses(net, strategy, batch, generator, epoch, how)
            _backward(parts, optimizer, how.clip, place, batch.samples)
            optimizer.step()
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise _memory_error(batch, place, how.device) from error
        if average is not None:
            average.update(net)
        weight = len(batch.labels)
        seen += weight
        values = {name: float(value.detach()) for name, value in parts.items()}
        total += weight * sum(values.values())
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + weight * value
        labels |= set(batch.labels.flatten().tolist())
        show.step(epoch, step, steps, total / seen)
    if step == 0:
        raise ValueError(NO_BATCHES)
    if epoch == 1 and strategy.supervision == "labels" and len(labels) == 1:
        raise ValueError(
            f"all {seen} training labels are class {labels.pop()}; training needs at least two classes: check labels and split"
        )
    parts_too = {f"train_{name}": value / seen for name, value in sums.items()} if len(sums) > 1 else {}
    return {"train_loss": total / seen, **parts_too}


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


def _backward(
    parts: dict[str, Tensor], optimizer: torch.optim.Optimizer, clip: float | None, place: str, samples: Sequence[str]
) -> None:
    """Fill the gradients.

    Raises:
        RuntimeError: the loss or the norm of the gradient is not finite. The weights are still those of the step before.
    """
    loss = torch.stack([value.float() for value in parts.values()]).sum()
    advice = "look at these samples first; else lower lr, raise warmup, set clip, or turn bf16 off"
    if not bool(loss.isfinite()):
        each = ", ".join(f"{name} {float(value.detach()):g}" for name, value in parts.items())
        raise RuntimeError(f"the loss is not finite ({each}) at {place}, samples {_names(samples)}: {advice}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if not bool(norm.isfinite()):
        raise RuntimeError(
            f"the gradient is not finite (loss {float(loss.detach()):g}) at {place}, samples {_names(samples)}: {advice}"
        )
    if clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)


def _length(batches: Iterable[Batch]) -> int:
    """The number of batches, which the schedule needs beforehand."""
    if not isinstance(batches, Sized):
        raise TypeError(
            f"batches(epoch, generator) must return something with a length, or pass steps=; got {type(batches).__name__}"
        )
    if len(batches) == 0:
        raise ValueError(NO_BATCHES)
    return len(batches)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether torch (CUDA, or the CPU's allocator) or Python ran out of memory."""
    text = str(error)
    words = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in text for word in words)


def _memory_error(batch: Batch, place: str, device: torch.device) -> RuntimeError:
    b, _, height, width = batch.images.shape
    bags = "" if batch.groups is None else f" ({len(batch.labels)} bags: lower tiles_per_bag too)"
    return RuntimeError(
        f"out of memory on {device} at {place} with {b} images of {height} x {width} px{bags}; lower batch_size or crop "
        "(memory grows with batch_size * crop^2)"
    )


def _names(samples: Sequence[str]) -> str:
    """Up to sixteen distinct names."""
    names = list(dict.fromkeys(samples))
    return ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")
