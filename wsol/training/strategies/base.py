"""What every strategy is: an `nn.Module` that turns a batch into named losses.

Images (b, 3, H, W) in [0, 1]; labels (b,), or (n,) one per bag when `batch.groups` (b,) names the bag of each tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from wsol.training.losses import binary_cross_entropy, cross_entropy

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer, Prediction


class Strategy(nn.Module):
    """Final door, small room behind it: the loop calls the module, a subclass writes `loss` (cross-entropy by default).

    A strategy may own parameters (they learn at the head's rate and are stored with the run). Seeds and teachers come in as
    callables. Its randomness is the generator it is given, a CPU one.

    Args:
        label_smoothing: share of each label that is spread over all classes, in [0, 1).
        class_weights: weight of each class in the cross-entropy, k numbers, see `losses.cross_entropy`.
    """

    supervision: ClassVar[Literal["labels", "masks"]] = "labels"
    """What it may look at. Only `"masks"` is ever handed a batch with masks."""
    paper: ClassVar[str] = ""
    """Where it comes from."""
    multilabel: ClassVar[bool] = False
    """Whether it can learn from several labels per sample: it asks nothing of them but their loss."""
    needs_parent: ClassVar[bool] = False
    """Whether it only makes sense on a trained net: a classifier that it explains and leaves as it is."""
    epochs: int | None = None
    """How many epochs it is fitted for; `fit` says so before anything else. For what comes in phases."""

    class_weights: Tensor | None

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32))

    def settings(self) -> dict[str, Any]:
        """The plain numbers and words it was built with: a resumed training must have the same."""
        plain = (bool, int, float, str, type(None))
        return {
            "name": type(self).__name__,
            **{
                name: value
                for name, value in vars(self).items()
                if isinstance(value, plain) and name[0] != "_" and name != "training"
            },
        }

    def attach(self, net: Localizer) -> None:
        """Fit the net to this strategy before the optimizer is made: freeze what does not learn (`requires_grad_(False)`).

        Runs at every start, after a resume too, so it must always do the same and touch no weights.
        """

    def prepare(self, net: Localizer, batches: Iterable[Batch]) -> None:
        """Run once before the first epoch, not again after a resume.

        What it finds out must live in parameters or buffers that `__init__` registered at their final shape: those are stored.
        `batches` are still where the data room left them (the CPU).
        """

    @final  # type: ignore[misc]
    def forward(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """Check the batch against the supervision, then `loss`, then check what came out.

        Raises:
            TypeError: the batch carries masks and this strategy is not declared to use them (or the other way round).
            ValueError: the losses are not scalars.
        """
        # By what the batch carries, not by its class: a batch with masks under any name is a batch with masks.
        masked = hasattr(batch, "masks")
        if masked and self.supervision != "masks":
            raise TypeError(
                f"{type(self).__name__} trains on labels (supervision {self.supervision!r}) but was handed a "
                f"{type(batch).__name__} with masks; build batches without masks, or use a strategy whose supervision is 'masks'"
            )
        if self.supervision == "masks" and not masked:
            raise TypeError(
                f"{type(self).__name__} trains on masks but was handed a {type(batch).__name__} without; pass MaskedBatch"
            )
        losses = self.loss(net, batch, generator, epoch)
        shapes = {name: tuple(value.shape) for name, value in losses.items()}
        if not losses or any(shape != () for shape in shapes.values()):
            raise ValueError(f"{type(self).__name__}.loss must return at least one scalar by name; got {shapes}")
        return losses

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """Named scalar losses of a batch; their sum is minimized.

        Args:
            net: the localizer, in training mode.
            batch: on the net's device.
            generator: CPU generator of this epoch, the only source of randomness.
            epoch: from 1.
        """
        images = self.seen(net, batch, generator)
        return self.classified(net.head(net.encode(images), groups=batch.groups, labels=batch.labels), net, batch.labels)

    def seen(self, net: Localizer, batch: Batch, generator: torch.Generator) -> Tensor:
        """The images (b, 3, H, W) as the net sees them: those of the batch, unless the strategy changes pixels."""
        return batch.images

    def kept(self, net: Localizer, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """How much of each place is left (b, 1, h, w), in [0, 1], where features are erased; None where they are not.

        For a look at a batch: without gradients, on a net in training mode.
        """
        labels = batch.labels if batch.groups is None else batch.labels[batch.groups]
        return net.head.kept(net.encode(batch.images), labels)

    def classified(self, prediction: Prediction, net: Localizer, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of image or bag logits, per class where labels are several, and what the head itself is trained on."""
        if labels.ndim == 2:
            return {"cross_entropy": binary_cross_entropy(prediction.logits, labels, label_smoothing=self.label_smoothing)}
        entropy = cross_entropy(prediction.logits, labels, label_smoothing=self.label_smoothing, class_weights=self.class_weights)
        return {"cross_entropy": entropy, **net.head.loss(prediction, labels)}
