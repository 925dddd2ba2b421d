"""negev, pixelcam and f-cam: what they lose, what learns, and what stays as it was to the bit."""

from __future__ import annotations

import math

import pytest
import torch

from wsol.data import Batch
from wsol.models import Localizer
from wsol.models.heads.linear import Gap
from wsol.training import build_strategy, cross_entropy, fit
from wsol.training.regularizers import window_crf
from wsol.training.sizes import log_barrier

NAMES = ("negev", "pixelcam", "f-cam")
FROZEN = ("negev", "f-cam")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Teacher:
    """Maps whose left half is active for class 1, the right half for class 0; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, images, labels):
        assert not torch.is_grad_enabled()
        self.asked.append((tuple(images.shape), labels.tolist()))
        maps = torch.zeros(len(images), 4, 4)
        maps[labels == 1, :, :2] = 1.0
        maps[labels == 0, :, 2:] = 1.0
        return maps


def build(name, teacher=None, **options):
    return build_strategy(name, seeds=teacher or Teacher(), **options)


def batch(b=4, groups=None, side=32):
    images = torch.rand(b, 3, side, side, generator=generator(1))
    if groups is None:
        return Batch(images, torch.arange(b) % 2, [f"s{i}" for i in range(b)])
    n = max(groups) + 1
    return Batch(images, torch.arange(n) % 2, [f"s{i}" for i in range(n)], torch.tensor(groups))


def plane(net, value):
    """Make the decoder say `value` everywhere."""
    last = net.head.last if hasattr(net.head, "last") else net.head.pixel[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, value)
    return net


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_is_asked_for_the_labels_and_tiles_have_that_of_their_bag(name, pixel_net):
    teacher = Teacher()
    strategy, net = build(name, teacher), pixel_net()
    strategy.attach(net)
    strategy(net, batch(), generator(), 1)
    strategy(net, batch(groups=[1, 0, 1, 1]), generator(), 1)
    assert teacher.asked == [((4, 3, 32, 32), [0, 1, 0, 1]), ((4, 3, 32, 32), [1, 0, 1, 1])]


def test_negev_on_a_constant_decoder(pixel_net):
    net, p = plane(pixel_net(), 0.7), 1 / (1 + math.exp(-0.7))
    found = build("negev", weight=2.0, lowest=0.25, power=0, foreground=4000, background=4000, dilation=1)(
        net, batch(), generator(), 1
    )
    # power 0: all 256 cells are foreground candidates, 64 of them also background: clashes. 192 foreground cells remain.
    assert found["seeds"].item() == pytest.approx(-2 * math.log(p))
    assert set(found) == {"seeds"}
    negatives = build("negev", weight=2.0, empty_class=0, lowest=0.25, power=0, foreground=4000, background=4000, dilation=1)(
        net, batch(), generator(), 1
    )
    assert negatives["seeds"].item() == pytest.approx(-math.log(p))  # half of the images
    assert negatives["negatives"].item() == pytest.approx(-math.log(1 - p) / 2)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_lost_as_a_slow_loop_says(name, pixel_net):
    strategy, net, told = build(name), pixel_net().eval(), batch()
    found = strategy(net, told, generator(), 1)["seeds"].item()
    with torch.no_grad():
        maps = strategy.seeds(told.images, told.labels)
    maps = torch.nn.functional.interpolate(maps[:, None], size=(16, 16), mode="bilinear")[:, 0]
    seeds, pixels = strategy.sampler(maps, generator()), net(told.images).pixels[:, 0].detach()
    total = 0.0
    for row, image in zip(seeds, pixels, strict=True):
        losses = []
        for y in range(16):
            for x in range(16):
                if row[y, x] >= 0:
                    p = 1 / (1 + math.exp(-float(image[y, x])))
                    losses.append(-math.log(p if row[y, x] == 1 else 1 - p))
        total += sum(losses) / len(losses)
    assert found == pytest.approx(total / 4, rel=1e-4)


def test_pixelcam_adds_the_labels(pixel_net):
    net, told = pixel_net("pixel", pixel_dropout=0.0).eval(), batch()
    found = build("pixelcam", label_smoothing=0.1, weight=3.0)(net, told, generator(), 1)
    expected = cross_entropy(net(told.images).logits, told.labels, label_smoothing=0.1)
    assert found["cross_entropy"].item() == pytest.approx(expected.item())
    single = build("pixelcam")(net, told, generator(), 1)["seeds"].item()
    assert found["seeds"].item() == pytest.approx(3 * single)
    bags = build("pixelcam")(net, batch(groups=[0, 0, 1, 1]), generator(), 1)
    pooled = net(told.images, groups=torch.tensor([0, 0, 1, 1])).logits
    assert bags["cross_entropy"].item() == pytest.approx(cross_entropy(pooled, torch.tensor([0, 1])).item())


def test_f_cam_adds_colors_and_sizes(pixel_net):
    net, told = pixel_net().eval(), batch()
    strategy = build("f-cam", crf=2.0, size=3.0, strength=4.0, strength_end=8.0, radius=1, sigma_rgb=0.3, sigma_xy=2.0)
    s = net(told.images).pixels[:, 0].sigmoid()
    images = told.images.reshape(4, 3, 16, 2, 16, 2).mean((3, 5))
    crf = window_crf(s, images, radius=1, sigma_rgb=0.3, sigma_xy=2.0).mean()
    for epoch, t in ((1, 4.0), (11, 4.0 * 1.01**10), (500, 8.0)):
        found = strategy(net, told, generator(), epoch)
        shares = s.mean((1, 2))
        sizes = torch.stack([log_barrier(-x, t) + log_barrier(-(1 - x), t) for x in shares]).mean()
        assert found["crf"].item() == pytest.approx(2 * crf.item(), rel=1e-4)
        assert found["sizes"].item() == pytest.approx(3 * sizes.item(), rel=1e-4)
    assert set(build("f-cam", crf=0, size=0)(net, told, generator(), 1)) == {"seeds"}


def test_f_cam_measures_bags_and_leaves_empty_ones_out(pixel_net):
    net, told = pixel_net().eval(), batch(groups=[1, 0, 1, 1])
    shares = net(told.images).pixels.sigmoid().mean((1, 2, 3))
    bag = (shares[0] + shares[2] + shares[3]) / 3
    found = build("f-cam", size=1.0, empty_class=0)(net, told, generator(), 1)
    assert found["sizes"].item() == pytest.approx((log_barrier(-bag, 1.0) + log_barrier(bag - 1, 1.0)).item(), rel=1e-4)
    nothing = Batch(told.images, torch.zeros(4, dtype=torch.int64), list("abcd"))
    empty = build("f-cam", empty_class=0)(net, nothing, generator(), 1)
    assert (empty["sizes"].item(), empty["seeds"].item()) == (0.0, 0.0)
    assert empty["negatives"].item() > 0


@pytest.mark.parametrize("name", FROZEN)
def test_the_classifier_does_not_move_by_a_bit(name, pixel_net):
    net = pixel_net(base_options={"dropout": 0.5})
    images = batch(side=40).images
    before = {k: v.clone() for k, v in net.state_dict().items()}
    said = net.eval()(images)
    told = [batch(), batch(groups=[0, 1, 1, 0])]
    options = {"epochs": 2, "lr": 1e-2, "weight_decay": 0.1, "ema": 0.5, "bf16": False, "channels_last": False, "device": "cpu"}
    fit(net, build(name, empty_class=0), lambda epoch, g: told, progress=False, **options)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) == (key.startswith(("backbone", "head.base"))), key
    after = net(images)
    assert torch.equal(after.logits, said.logits)
    assert torch.equal(after.maps, said.maps)
    assert not torch.equal(after.pixels, said.pixels)


def test_pixelcam_moves_everything(pixel_net):
    net = pixel_net("pixel")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fit(net, build("pixelcam"), lambda e, g: [batch()], epochs=2, lr=1e-2, bf16=False, device="cpu", progress=False)
    assert not any(torch.equal(v, before[k]) for k, v in net.state_dict().items() if "num_batches" not in k)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_learn_the_teachers_half(name, pixel_net):
    net, told = pixel_net(), batch()
    told.images[1::2, 0, :, :16] += 0.5  # the half that the teacher marks is redder
    told.images[0::2, 0, :, 16:] += 0.5
    fit(net, build(name), lambda e, g: [told] * 10, epochs=3, lr=3e-3, bf16=False, device="cpu", progress=False)
    with torch.no_grad():
        maps = net(told.images).pixels[:, 0]
    cells = maps.shape[-1]
    left, right = maps[..., : cells * 3 // 8].mean((1, 2)), maps[..., cells * 5 // 8 :].mean((1, 2))
    assert (torch.where(told.labels == 1, left, right) > 0.5).all()
    assert (torch.where(told.labels == 1, right, left) < -0.5).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [1e4, -1e4])
def test_losses_are_finite_and_stay_float32_where_the_decoder_is_sure(name, value, pixel_net):
    net, strategy = plane(pixel_net(), value), build(name, empty_class=0)
    strategy.attach(net)
    with torch.autocast("cpu", torch.bfloat16):
        losses = strategy(net, batch(), generator(), 1)
    assert {v.dtype for v in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_decides_and_settings_tell_the_sampler(name, pixel_net):
    net, strategy = pixel_net().eval(), build(name, foreground=7)
    first, again, other = (strategy(net, batch(), generator(seed), 1)["seeds"].item() for seed in (0, 0, 1))
    assert first == again != other
    assert strategy.settings()["foreground"] == 7
    assert "seeds" not in strategy.settings()


def test_without_a_decoder_or_with_options_out_of_range():
    net = Localizer(torch.nn.Identity(), Gap(16, 2))
    for name in NAMES:
        with pytest.raises(ValueError, match=r"trains pixels and needs a head that has them.*got Gap"):
            build(name).attach(net)
    with pytest.raises(ValueError, match="weight, of the loss on seeds, must be positive"):
        build("negev", weight=0)
    with pytest.raises(ValueError, match="empty_class is the index of a class"):
        build("negev", empty_class=-1)
    with pytest.raises(ValueError, match="crf is a weight"):
        build("f-cam", crf=-1)
    with pytest.raises(ValueError, match="start <= end"):
        build("f-cam", strength=20)
