"""Several processes that train one net: each takes its share of every batch, and all take the same step.

The processes are started by torchrun, one per GPU (or per CPU core), and find each other by the environment it sets. Gradients
are added by hand, in one flat buffer after the last backward of a step. torch's DistributedDataParallel adds them while backward
runs, but by hooks that only a forward through its wrapper arms, and strategies call `net.encode` and `net.head` as often as they
like; nor does it know of shares of different size, or of none. What is lost is the overlap of a few megabytes with backward.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: the first one validates alone. Of a dead one it learns at once."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone unless said otherwise.

    Attributes:
        rank: number of this process, from 0.
        count: of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process validates, writes and speaks."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """(rank, count), as the loaders of `wsol.data` take it."""
        return self.rank, self.count

    def stream(self, name: str) -> str:
        """The name of a stream of random numbers that are this process's own; the first has those of a process alone."""
        return name if self.first else f"{name}/{self.rank}"

    def add_gradients(self, parameters: Sequence[nn.Parameter], weight: float) -> float:
        """Let every gradient be its sum over all processes; returns the sum of `weight`.

        A parameter without a gradient here gets that of the others, and one without any stays without.
        """
        if self.count == 1:
            return weight
        known = torch.tensor([weight, *(p.grad is not None for p in parameters)], device=parameters[0].device)
        slopes = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float() for p in parameters]
        flat = torch.cat([known, *slopes])
        with self._together():
            distributed.all_reduce(flat)
        total, *there = flat[: len(known)].tolist()
        for p, found, slope in zip(parameters, there, flat[len(known) :].split([p.numel() for p in parameters]), strict=True):
            if found:
                p.grad = torch.empty_like(p).copy_(slope.view(p.shape))  # in the memory layout of the parameter
        return float(total)

    def gather(self, value: T) -> list[T]:
        """What each process calls `value`, in the order of the processes, on all of them."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with self._together():
            distributed.all_gather_object(found, value)
        return found

    def of_first(self, value: T) -> T:
        """What the first process calls `value`."""
        held = [value]
        if self.count > 1:
            with self._together():
                distributed.broadcast_object_list(held, src=0)
        return held[0]

    def follow_first(self, *modules: nn.Module) -> None:
        """Take over the parameters and buffers of the first process, e.g. batch-norm statistics, which are each one's own."""
        if self.count == 1:
            return
        for value in (v for module in modules for v in module.state_dict().values()):
            plain = value.detach().contiguous()
            with self._together():
                distributed.broadcast(plain, src=0)
            value.copy_(plain)

    def require_same(self, what: str, value: Any) -> None:
        """Raise RuntimeError unless all processes have the same `value`."""
        found = self.gather(value)
        if any(other != found[0] for other in found):
            raise RuntimeError(
                f"the {self.count} processes differ in {what} ({', '.join(map(str, found))}): all need the same command, code "
                "and files (a file system that they share)"
            )

    def leave(self) -> None:
        """Part from the others, all at the same point. After an error just end: the others wait, and torchrun ends them."""
        if self.count > 1:
            distributed.destroy_process_group()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Says of a connection that broke what it means."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RuntimeError(
                f"process {self.rank} of {self.count} stops, since another one did: look for its message ({reason})"
            ) from error


ALONE = Ranks()


def join(device: torch.device) -> Ranks:
    """Join the processes that torchrun started; `ALONE` where it started none. `Ranks.leave` ends it.

    Args:
        device: CPU, by gloo; or CUDA, by nccl, where ``cuda`` becomes the GPU of this process from here on.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) if device.index is None else device.index)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return Ranks(distributed.get_rank(), count)
