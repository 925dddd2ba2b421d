"""The training loop, readable from top to bottom.

Epochs and steps count from 1. Randomness comes from (seed, epoch) only: `batches` and the strategy get generators, and random
layers are seeded for the length of an epoch. On a CPU, the same seed and number of threads give the same bits, whether or not the
training was killed on its way; on CUDA some kernels add in any order, and equality holds to rounding.

Several processes (`ranks`) see together, batch by batch, what one alone would see, and their losses and weights are its own to
rounding. What is drawn for a batch is another matter: each process draws for its share (dropout, hidden patches), what pairs
images pairs those of a share (cutmix), what is tossed for a batch is tossed for each share (ADL), and live batch-norm statistics
are those of the shares, the first process's being kept. The state on disk and the random streams know the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wsol._names import closest
from wsol.training.criteria import CHECKPOINTS, Criterion
from wsol.training.device import choose_device
from wsol.training.ema import Ema
from wsol.training.epoch import Step, train_epoch
from wsol.training.history import Row, write_history
from wsol.training.optimizer import build_optimizer
from wsol.training.parallel import ALONE, Ranks
from wsol.training.parts import Parts, resumed
from wsol.training.progress import display
from wsol.training.randomness import seeded_generator, seeded_layers
from wsol.training.resume import Kept, State, snapshot, weights_hash, write_state
from wsol.training.schedule import warmup_cosine

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer
    from wsol.training.strategies.base import Strategy

Batches = Callable[[int, torch.Generator], Iterable["Batch"]]
Validate = Callable[["Localizer"], Mapping[str, float]]
Save = Callable[[str, "Localizer", int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a localizer is fitted; calling it with a net, a strategy and batches trains.

    Attributes:
        epochs: passes over the batches.
        steps: batches per epoch, for the schedule; None: the length of what `batches` returns.
        accumulate: batches per step of the optimizer (the last step of an epoch may have fewer). Each counts by its labels, so
            that n batches of b are one of n * b, for losses that are means over the labels and a net without live batch norm.
        lr: peak rate of the backbone; `net.head` and the strategy's own parameters get `head_lr_factor` times as much.
        head_lr_factor: see `lr`.
        weight_decay: AdamW's, not on norms and biases.
        warmup: share of the steps that warm up, before the cosine.
        clip: largest gradient norm; None does not clip.
        ema: decay of a moving average of the weights, which then is validated and kept; None: no average.
        bf16: bfloat16 autocast in training. Validation runs as `validate` runs it.
        channels_last: NHWC memory, faster for convolutions on CPU and GPU.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of all that is drawn while training; the weights of the net at the start are the caller's.
        validate: gets the net in evaluation mode on its device after every epoch, returns metrics by name.
        keep: criteria by checkpoint name; only `last` if not given. The untrained net is no candidate.
        save: (name, net, epoch, metrics), called once per name after the last epoch with that epoch's weights in the net. Not
            before: the checkpoint of a training that is still running would look like a result.
        state_path: folder from which a killed training goes on, exactly; removed by `clear_state` when all is saved.
        fingerprint: what else the result depends on (code version, data hashes, crop, ...), JSON-ready. A state of another
            fingerprint, other settings or other starting weights is not used; a message says what differs.
        history_path: CSV with one row per epoch, rewritten whole after each.
        on_epoch: gets each finished row.
        progress: True: a bar; False: silent; None: a bar on a terminal, else one line per epoch.
        ranks: the processes that train together (`parallel.join`). `batches` gives each its share: as many batches to all,
            together those of a process alone, an empty one where there is nothing to share. All must be called with the same
            settings, net and strategy; the first validates, writes and calls back.

    Raises:
        ValueError: a setting is out of range, or a criterion needs a metric and there is no validation.
    """

    epochs: int
    steps: int | None = None
    accumulate: int = 1
    lr: float = 2e-4
    head_lr_factor: float = 10.0
    weight_decay: float = 1e-4
    warmup: float = 0.1
    clip: float | None = None
    ema: float | None = None
    bf16: bool = True
    channels_last: bool = True
    device: str = "auto"
    seed: int = 0
    validate: Validate | None = None
    keep: Mapping[str, Criterion] = field(default_factory=lambda: {"last": CHECKPOINTS["last"]})
    save: Save | None = None
    state_path: Path | str | None = None
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    history_path: Path | str | None = None
    on_epoch: Callable[[Row], None] | None = None
    progress: bool | None = None
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        if self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(
                f"epochs must be at least 1 and so must steps per epoch; got epochs {self.epochs}, steps {self.steps}"
            )
        if self.accumulate < 1:
            raise ValueError(f"accumulate is the number of batches per step, at least 1; got {self.accumulate}")
        warmup_cosine(0.0, self.warmup)
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is the largest gradient norm and must be positive; got {self.clip}")
        for name, criterion in self.keep.items():
            if criterion.metric is not None and self.validate is None:
                raise ValueError(
                    f"checkpoint {name!r} is chosen by {criterion.metric!r}, but there is no validation; pass validate="
                )

    def __call__(self, net: Localizer, strategy: Strategy, batches: Batches) -> list[Row]:
        """Train; see `fit`."""
        strategy.epochs, ranks = self.epochs, self.ranks
        strategy.attach(net)
        settings = self.settings(net, strategy)
        ranks.require_same("their settings or starting weights", weights_hash(net, strategy))
        how = Step(
            choose_device(self.device), self.epochs, self.warmup, self.clip, self.bf16, self.channels_last, self.steps,
            self.accumulate, ranks,
        )  # fmt: skip
        parts = self._parts(net, strategy, how.device)
        average = parts.average

        with display(self.epochs, self.progress if ranks.first else False) as show:
            folder = Path(self.state_path) if self.state_path is not None else None
            state = resumed(folder, settings, parts, self.epochs, show.say if ranks.first else lambda text: None)
            ranks.require_same("the epoch that they go on from", state.epoch)
            if state.epoch == 0:
                strategy.prepare(net, batches(1, seeded_generator(self.seed, 0, "prepare")))
                ranks.follow_first(net, strategy)

            for epoch in range(state.epoch + 1, self.epochs + 1):
                started = time.perf_counter()
                with seeded_layers(self.seed, epoch, how.device, ranks.stream("layers")):
                    stream = batches(epoch, seeded_generator(self.seed, epoch, "batches"))
                    draws = seeded_generator(self.seed, epoch, ranks.stream("loss"))
                    losses = train_epoch(net, strategy, stream, parts.optimizer, average, draws, show, epoch=epoch, how=how)
                ranks.follow_first(net, strategy)
                with average.applied(net) if average else nullcontext():
                    metrics = ranks.of_first(_validated(net, self.validate if ranks.first else None))
                    _choose(state.kept, self.keep, net, epoch, metrics)
                rate, seconds = parts.rate() * self.lr, time.perf_counter() - started
                row = {"epoch": epoch, **losses, "lr": rate, "seconds": seconds, **metrics}
                state.epoch, state.history = epoch, [*state.history, row]
                if ranks.first:
                    self._write(state, parts, settings)
                    show.epoch(row)
                    if self.on_epoch is not None:
                        self.on_epoch(row)

        if average is not None:
            net.load_state_dict(average.average)
        net.eval()
        if ranks.first:
            if self.history_path is not None:  # a training that was resumed after its last epoch still owes the file
                write_history(state.history, Path(self.history_path))
            _save_kept(net, self.keep, state, self.save)
        return state.history

    def _write(self, state: State, parts: Parts, settings: Mapping[str, Any]) -> None:
        """Put the state and the history on disk, after an epoch."""
        if self.state_path is not None:
            parts.into(state)
            write_state(Path(self.state_path), state, settings)
        if self.history_path is not None:
            write_history(state.history, Path(self.history_path))

    def settings(self, net: Localizer, strategy: Strategy) -> dict[str, Any]:
        """All that the result depends on, JSON-ready, by which a resumed training knows its state."""
        numbers = (
            "epochs",
            "steps",
            "accumulate",
            "lr",
            "head_lr_factor",
            "weight_decay",
            "warmup",
            "clip",
            "ema",
            "bf16",
            "channels_last",
            "seed",
        )
        return {
            **{name: getattr(self, name) for name in numbers},
            "processes": self.ranks.count,
            "strategy": strategy.settings(),
            "keep": {name: asdict(criterion) for name, criterion in self.keep.items()},
            "start": weights_hash(net, strategy),
            "fingerprint": dict(self.fingerprint),
        }

    def _parts(self, net: Localizer, strategy: Strategy, device: torch.device) -> Parts:
        """Everything on its device, with a fresh optimizer."""
        net.to(device)
        if self.channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        strategy.to(device)
        optimizer = build_optimizer(net, strategy, lr=self.lr, head_lr_factor=self.head_lr_factor, weight_decay=self.weight_decay)
        return Parts(net, strategy, optimizer, Ema(net, self.ema) if self.ema is not None else None)


def fit(net: Localizer, strategy: Strategy, batches: Batches, **options: Any) -> list[Row]:
    """Train `net` in place and hand the epochs worth keeping to `save`.

    Args:
        net: moved to the device; at the end in evaluation mode with the last (with `ema`: the averaged) weights.
        strategy: what is minimized.
        batches: (epoch, generator) -> the batches of this epoch, e.g. ``lambda epoch, generator: loader.epoch(generator)``.
        options: the fields of `Fit`; `epochs` is required.

    Returns:
        The history: epoch, train_loss (and each part where there are several), lr, seconds, validation metrics.

    Raises:
        ValueError: a setting is out of range, all training labels are one class, a criterion's metric is missing.
        TypeError: an option that `Fit` does not have; the message names the nearest one.
        RuntimeError: a loss or gradient is not finite (names epoch, step, samples), or memory ran out (names what to lower).
    """
    known = [option.name for option in fields(Fit)]
    for name in options:
        if name not in known:
            raise TypeError(closest("option", name, known, of="fit"))
    return Fit(**options)(net, strategy, batches)


def _validated(net: Localizer, validate: Validate | None) -> dict[str, float]:
    """The metrics of the net in evaluation mode."""
    net.eval()
    return {} if validate is None else {name: float(value) for name, value in validate(net).items()}


def _choose(kept: dict[str, Kept], keep: Mapping[str, Criterion], net: Localizer, epoch: int, metrics: dict[str, float]) -> None:
    """Let every criterion decide whether this epoch replaces the one it holds."""
    for name, criterion in keep.items():
        if criterion.better(metrics, kept[name].metrics if name in kept else None):
            # What keeps the last epoch needs no copy: its weights are in the net when training ends.
            kept[name] = Kept(epoch, metrics, None if criterion.metric is None else snapshot(net.state_dict()))


def _save_kept(net: Localizer, keep: Mapping[str, Criterion], state: State, save: Save | None) -> None:
    """Hand each kept epoch to `save`, with its weights in the net; afterwards the net is as before.

    Raises:
        RuntimeError: a criterion kept nothing, since its metric never was a number.
    """
    last = snapshot(net.state_dict())
    for name, criterion in keep.items():
        if name not in state.kept:
            raise RuntimeError(f"no epoch can be kept as {name!r}: {criterion.metric!r} was never a number; see the history")
        best = state.kept[name]
        if save is not None:
            net.load_state_dict(last if best.weights is None else best.weights)
            save(name, net, best.epoch, dict(best.metrics))
    net.load_state_dict(last)
