"""The trained masking network of Dabkowski and Gal: one pass draws which pixels a finished classifier needs for a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from wsol._names import closest
from wsol.training.losses import cross_entropy
from wsol.training.masking import Veil, advantage, area, smoothness, variation
from wsol.training.strategies.base import Strategy

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer

DEFAULTS = {
    "code": {"destroy": 1.0, "area": 8.0, "smooth": 0.005, "preserve": 0.3},
    "paper": {"destroy": 5.0, "area": 1e-3, "smooth": 10.0, "preserve": 1.0},
}
"""Loss -> weights of its terms: of the released trainer, and as the paper states them."""


class Masker(Strategy):
    """Trains the mask of the head `masker`; backbone and classifier, the black box, stay as they are: start `from` a trained one.

    A class is asked for that is the label or, with some probability, another one (a fake). Share `selector_share` of the epochs
    trains the embedding alone to tell the two apart: cross-entropy of the existence logits. The rest trains the decoder alone.
    For an image x of class y, its mask M, the veil Phi (`masking.Veil`) and the black box:

    - `code`, as released: destroy h(x; 1 - M) + preserve h'(x; M) + area mean (M + .0005)^.3 + smooth S(M). With d the lead of
      y's logit over the next one: for the label, M must hide y, h = max(0, d + 5), and 1 - M must not, h' = max(0, 1 - d); for a
      fake, 1 - M must keep y, h = max(0, 1 - d), and M must not show it, h' = max(0, d + 1). So an absent class gets an empty
      mask. S is `masking.smoothness`.
    - `paper`: smooth TV(M) + area mean M - preserve log p_y(Phi(x; M)) + destroy p_y(Phi(x; 1 - M))^.3. For a fake M and 1 - M
      change places in the last two; the paper does not say what it does there, this is how the code treats its own terms.

    The label's class is what the loss is about, also where the mask is asked for a fake. Differences from the release: any other
    class may be the fake (theirs never is the last one before the label), constants are halved for images in [0, 1], and masks
    are resized with align_corners=False. Bags are refused: a tile of a slide need not show the slide's class, and would teach
    the network to see it where it is not.
    """

    paper = "https://arxiv.org/abs/1705.07857"
    needs_parent = True

    def __init__(
        self,
        *,
        loss: Literal["code", "paper"] = "code",
        selector_share: float = 0.5,
        selector_fakes: float = 0.5,
        mask_fakes: float = 0.3,
        destroy: float | None = None,
        preserve: float | None = None,
        area: float | None = None,
        smooth: float | None = None,
        power: float = 0.3,
        border: float = 0.3,
        destroy_lead: float = 5.0,
        preserve_lead: float = 1.0,
        fake_lead: float = 1.0,
        blur: float = 0.5,
        sigma: float = 11.0,
        color: float = 0.165,
        color_noise: float = 0.055,
        image_noise: float = 0.015,
        label_smoothing: float = 0.0,
    ) -> None:
        """Options.

        Args:
            loss: "code" or "paper".
            selector_share: share of the epochs that train the embedding, in (0, 1); each phase gets one at least. (The authors:
                8500 steps of 128 images, then 3000 of 64.)
            selector_fakes: probability of a fake while the embedding trains.
            mask_fakes: probability of a fake while the decoder trains.
            destroy: weight; None: 1 (code) or 5 (paper).
            preserve: weight; None: 0.3 or 1.
            area: weight; None: 8 or 1e-3.
            smooth: weight; None: 0.005 or 10. Both sums grow with the length of the mask's outline in px.
            power: of the area (code), of the destroyed probability (paper).
            border: weight of the borders within `smoothness` (code).
            destroy_lead: 5, the logits by which another class should lead where the label was hidden (code).
            preserve_lead: 1, the logits by which the label should lead where it is shown (code).
            fake_lead: 1, both leads for fakes (code).
            blur: probability that what is hidden is blurred, rather than of one color; this and the next four as for `Veil`.
            sigma: of that blur, px.
            color: a channel of that color is uniform in 0.5 +- `color`.
            color_noise: standard deviation of the noise on that color.
            image_noise: standard deviation of the noise on the image.
            label_smoothing: of the existence loss.

        Raises:
            ValueError: a value out of range.
        """
        super().__init__(label_smoothing=label_smoothing)
        if loss not in DEFAULTS:
            raise ValueError(closest("loss", loss, DEFAULTS))
        for name, share in {"selector_share": selector_share, "selector_fakes": selector_fakes}.items():
            if not 0 < share < 1:
                raise ValueError(f"{name} must be in (0, 1); got {share}")
        if not 0 < power <= 1:
            raise ValueError(f"power must be in (0, 1]; got {power}")
        if not 0 <= mask_fakes < 1:
            raise ValueError(f"mask_fakes must be in [0, 1), or no mask is ever asked for its own class; got {mask_fakes}")
        given = {"destroy": destroy, "preserve": preserve, "area": area, "smooth": smooth}
        weights = {name: DEFAULTS[loss][name] if value is None else value for name, value in given.items()}
        for name, value in {**weights, "border": border}.items():
            if not value >= 0:
                raise ValueError(f"{name} is a weight and must not be negative; got {value}")
        self.formula, self.selector_share = loss, selector_share
        self.selector_fakes, self.mask_fakes = selector_fakes, mask_fakes
        self.destroy, self.preserve = weights["destroy"], weights["preserve"]
        self.area, self.smooth = weights["area"], weights["smooth"]
        self.power, self.border = power, border
        self.destroy_lead, self.preserve_lead, self.fake_lead = destroy_lead, preserve_lead, fake_lead
        self.blur, self.sigma, self.color = blur, sigma, color
        self.color_noise, self.image_noise = color_noise, image_noise
        self.veil = Veil(blur, sigma, color, color_noise, image_noise)

    def attach(self, net: Localizer) -> None:
        """Freeze the black box: backbone and base head.

        Raises:
            ValueError: the net's head draws no masks, or there is one class only.
        """
        head = _masker(net)
        if len(head.selector.weight) < 2:
            raise ValueError("the masking network needs at least two classes: a mask is also asked for a class that is absent")
        net.backbone.requires_grad_(False)
        head.base.requires_grad_(False)

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """`existence`, or (by epoch) the weighted terms `destroyed`, `preserved`, `area`, `smooth`.

        Raises:
            ValueError: bags, or a training too short for two phases.
        """
        if batch.groups is not None:
            raise ValueError(
                "strategy 'masker' needs a label for each image, and these are bags of tiles: a tile need not show what its "
                "slide is labeled with; use an image dataset (regions or tiles with labels of their own)"
            )
        head = _masker(net)
        selecting = epoch <= self.selector_epochs()
        share = self.selector_fakes if selecting else self.mask_fakes
        real, targets = asked(batch.labels, len(head.selector.weight), share, generator)
        with torch.no_grad():
            f = net.encode(batch.images)
        if selecting:
            said = head.existence(f, targets)
            return {"existence": cross_entropy(said, real.long(), label_smoothing=self.label_smoothing)}
        size = batch.images.shape[2:]
        mask = head.mask(f, targets, confidence=0.0)[:, None].float()
        mask = functional.interpolate(mask, size, mode="bilinear", align_corners=False)[:, 0]
        veiled = torch.cat([self.veil(batch.images, m, generator) for m in (1 - mask, mask)])
        destroyed, preserved = head.base(net.encode(veiled)).logits.float().chunk(2)
        return self.terms(mask, destroyed, preserved, batch.labels, real)

    def selector_epochs(self) -> int:
        """How many of the epochs train the embedding.

        Raises:
            ValueError: the number of epochs is not known, or there are not two.
        """
        if self.epochs is None or self.epochs < 2:
            raise ValueError(
                "strategy 'masker' trains its embedding in the first epochs and its decoder in the others: epochs must be at "
                f"least 2; got {self.epochs}"
            )
        return min(max(1, round(self.selector_share * self.epochs)), self.epochs - 1)

    def terms(self, mask: Tensor, destroyed: Tensor, preserved: Tensor, labels: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the loss.

        Args:
            mask: float32 (b, H, W) in [0, 1].
            destroyed: float32 logits (b, k) of Phi(x; 1 - M).
            preserved: float32 logits (b, k) of Phi(x; M).
            labels: int64 (b,), the true ones.
            real: bool (b,), whether the mask was asked for the label.
        """
        each = self._code if self.formula == "code" else self._paper
        with torch.autocast(mask.device.type, enabled=False):
            found = each(mask, destroyed, preserved, labels, real)
            return {name: value.mean() for name, value in found.items()}

    def _code(self, mask: Tensor, destroyed: Tensor, preserved: Tensor, labels: Tensor, real: Tensor) -> dict[str, Tensor]:
        gone, left = advantage(destroyed, labels), advantage(preserved, labels)
        return {
            "destroyed": self.destroy * torch.where(real, gone + self.destroy_lead, self.fake_lead - gone).relu(),
            "preserved": self.preserve * torch.where(real, self.preserve_lead - left, left + self.fake_lead).relu(),
            "area": self.area * area(mask, self.power),
            "smooth": self.smooth * smoothness(mask, self.border),
        }

    def _paper(self, mask: Tensor, destroyed: Tensor, preserved: Tensor, labels: Tensor, real: Tensor) -> dict[str, Tensor]:
        gone, left = (x.log_softmax(1).gather(1, labels[:, None])[:, 0] for x in (destroyed, preserved))
        return {
            "destroyed": self.destroy * (self.power * torch.where(real, gone, left)).exp(),
            "preserved": -self.preserve * torch.where(real, left, gone),
            "area": self.area * mask.mean((1, 2)),
            "smooth": self.smooth * variation(mask),
        }


def asked(labels: Tensor, classes: int, fakes: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which class the mask of each image is asked for.

    Args:
        labels: int64 (b,).
        classes: k, at least 2.
        fakes: probability of another class than the label, any with the same chance.
        generator: on the CPU.

    Returns:
        bool (b,), whether it is the label; int64 (b,), the class.
    """
    fake = torch.rand(len(labels), generator=generator) < fakes
    further = torch.randint(1, classes, (len(labels),), generator=generator)
    return ~fake.to(labels.device), (labels + (fake * further).to(labels.device)) % classes


def _masker(net: Localizer) -> Any:
    """The net's head, which must draw masks."""
    head: Any = net.head
    if not callable(getattr(type(head), "mask", None)):
        raise ValueError(
            f"strategy 'masker' trains the head 'masker'; this net has {type(head).__name__}: set `head: masker` and "
            "`from:` a trained model whose head is its `base`"
        )
    return head
