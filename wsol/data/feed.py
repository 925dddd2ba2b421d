"""What every loader shares: the order of an epoch, a cache of pixels bounded in bytes, and one thread that works ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
RGB = npt.NDArray[np.uint8]


def read_labels(rows: pd.DataFrame, indices: Sequence[int], multilabel: int) -> torch.Tensor:
    """The labels of some rows of a manifest: int64 (n,), or float32 (n, k) of 0 and 1 where there may be several of k classes."""
    if not multilabel:
        return torch.from_numpy(rows["label"].to_numpy(np.int64)[list(indices)])
    held = torch.zeros(len(indices), multilabel)
    for row, i in enumerate(indices):
        held[row, [int(c) for c in rows["labels"][i].split()]] = 1
    return held


def epoch_order(
    labels: npt.NDArray[np.int64], generator: torch.Generator | None, *, repeats: int = 1, balanced: bool = False
) -> npt.NDArray[np.int64]:
    """The order in which samples are drawn in one epoch; none is ever left out.

    Args:
        labels: one per sample.
        generator: shuffles; None keeps the order of the rows.
        repeats: times that each sample is drawn.
        balanced: samples of rarer classes are drawn again until every class has as many draws as the most frequent one.

    Returns:
        Indices, int64 (n * repeats,) or more when `balanced`.
    """

    def shuffled(pool: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return pool if generator is None else pool[torch.randperm(len(pool), generator=generator).numpy()]

    everyone = np.arange(len(labels), dtype=np.int64)
    if not balanced:
        return np.concatenate([shuffled(everyone) for _ in range(repeats)])
    pools = [everyone[labels == label] for label in np.unique(labels)]
    most = max(map(len, pools)) * repeats
    drawn = [np.concatenate([shuffled(pool) for _ in range(-(-most // len(pool)))])[:most] for pool in pools]
    return shuffled(np.concatenate(drawn)) if generator is not None else np.stack(drawn, 1).ravel()


def seeds(count: int, generator: torch.Generator | None) -> list[int]:
    """One seed per draw, all drawn before any pixel is read: what a thread does later cannot change them."""
    if generator is None:
        return list(range(count))
    return [int(s) for s in torch.randint(2**63 - 1, (count,), generator=generator)]


def shared(draws: Sequence[T], size: int, share: tuple[int, int]) -> list[Sequence[T]]:
    """What of each batch of `size` draws falls to the process `share` = (rank, count).

    All processes get as many batches, and those of one number together are the batch that a process alone, (0, 1), gets. A batch
    that is smaller than `count` leaves nothing for some.
    """
    rank, count = share
    if not 0 <= rank < count:
        raise ValueError(f"share is (rank, count) with rank in 0..count - 1; got {share}")
    return [draws[i : i + size][rank::count] for i in range(0, len(draws), size)]


class PixelCache:
    """Decoded pixels by key, kept until `limit` bytes are held; what comes later is loaded each time.

    Nothing is evicted: an epoch visits everything once, and there an LRU cache that is too small would never hit.
    """

    def __init__(self, limit: int = 2**30) -> None:
        if limit < 0:
            raise ValueError(f"the limit is a number of bytes, 0 for no cache; got {limit}")
        self.limit = limit
        self.bytes = 0
        self._held: dict[Hashable, RGB] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable, load: Callable[[], RGB]) -> RGB:
        """The pixels of `key`, read-only, by `load` if they are not held."""
        if key in self._held:
            return self._held[key]
        pixels = load()
        pixels.setflags(write=False)
        with self._lock:
            if key not in self._held and self.bytes + pixels.nbytes <= self.limit:
                self._held[key] = pixels
                self.bytes += pixels.nbytes
        return pixels


def work_ahead(tasks: Iterable[Callable[[], T]], ahead: int) -> Iterator[T]:
    """The results of `tasks` in order, worked out in one background thread up to `ahead` results early; 0 works in the caller's
    thread.

    An error in a task is raised where its result would have come. Leaving the loop early drops what was not begun.
    """
    if ahead == 0:
        for task in tasks:
            yield task()
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="wsol-feed") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
