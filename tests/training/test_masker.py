"""The strategy `masker`: both losses written out slowly, the phases, what stays frozen, and that a mask finds its square."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.data import Batch
from wsol.models import Backbone, Localizer, build_localizer
from wsol.models.heads.linear import Gap
from wsol.models.heads.masking import Masker as Head
from wsol.training import build_strategy, fit
from wsol.training.strategies.masker import asked

NAMES = {"destroyed", "preserved", "area", "smooth"}


class Tiny(Backbone):
    paper = "none"
    channels = (8, 12, 16)

    def __init__(self):
        nn.Module.__init__(self)
        self.strides, self.freeze_bn = (2, 4, 8), True
        inside = (3, *self.channels[:-1])
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in zip(inside, self.channels, strict=True))

    def normalize(self, images):
        return images - 0.5

    def stage(self, number, x):
        return self.convs[number](x).relu()

    @staticmethod
    def find_imagenet():
        raise RuntimeError("no weights")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def net(classes=2, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Localizer(Tiny(), Head(Tiny.channels, classes, width=8))


def squares(count, generator, size=32):
    """Noise with a square, red or blue by the class; images, labels, where the square is."""
    labels = torch.arange(count) % 2
    images = torch.rand(count, 3, size, size, generator=generator) * 0.3 + 0.2
    where = torch.zeros(count, size, size, dtype=torch.bool)
    for i in range(count):
        y, x = torch.randint(0, size - 10, (2,), generator=generator).tolist()
        where[i, y : y + 10, x : x + 10] = True
        images[i, 0 if labels[i] else 2][where[i]] = 1.0
    return images, labels, where


def batch(count=8, seed=0):
    images, labels, _ = squares(count, seeded(seed))
    return Batch(images, labels, [str(i) for i in range(count)])


def batches(epoch, generator, steps=3):
    return [Batch(*squares(8, generator)[:2], [str(i) for i in range(8)]) for _ in range(steps)]


def fitted(strategy, epochs=2, **options):
    made = net()
    history = fit(
        made, strategy, options.pop("batches", batches), epochs=epochs, device="cpu", progress=False, bf16=False, **options
    )
    return made, history


def ready(**options):
    strategy, made = build_strategy("masker", **options), net()
    strategy.epochs = 2
    strategy.attach(made)
    made.train()
    return strategy, made


# The losses.


def slow_code(mask, destroyed, preserved, label, real):
    """One image, as the released trainer has it."""
    others = [c for c in range(len(destroyed)) if c != label]

    def hinge(logits, targeted, t, nt):
        best = max(logits[c] for c in others)
        return max(0.0, best - logits[label] + t) if targeted else max(0.0, logits[label] - best + nt)

    h, w = len(mask), len(mask[0])
    cells = [m for row in mask for m in row]
    steps = sum((mask[y + 1][x] - mask[y][x]) ** 2 for y in range(h - 1) for x in range(w))
    steps += sum((mask[y][x + 1] - mask[y][x]) ** 2 for y in range(h) for x in range(w - 1))
    edges = sum(m**2 for m in [*mask[0], *mask[-1], *(row[0] for row in mask), *(row[-1] for row in mask)])
    return {
        "destroyed": hinge(destroyed, not real, 1.0, 5.0),
        "preserved": 0.3 * hinge(preserved, real, 1.0, 1.0),
        "area": 8 * sum((m + 0.0005) ** 0.3 for m in cells) / (h * w),
        "smooth": 0.005 * (steps + 0.3 * edges) / 2,
    }


def slow_paper(mask, destroyed, preserved, label, real):
    """One image; a fake changes the roles of mask and rest."""

    def p(logits):
        return math.exp(logits[label]) / sum(math.exp(x) for x in logits)

    shown, hidden = (preserved, destroyed) if real else (destroyed, preserved)
    h, w = len(mask), len(mask[0])
    steps = sum((mask[y + 1][x] - mask[y][x]) ** 2 for y in range(h - 1) for x in range(w))
    steps += sum((mask[y][x + 1] - mask[y][x]) ** 2 for y in range(h) for x in range(w - 1))
    return {
        "destroyed": 5 * p(hidden) ** 0.3,
        "preserved": -math.log(p(shown)),
        "area": 1e-3 * sum(m for row in mask for m in row) / (h * w),
        "smooth": 10 * steps,
    }


@pytest.mark.parametrize(("loss", "slow"), [("code", slow_code), ("paper", slow_paper)])
def test_the_losses_image_by_image(loss, slow):
    g = seeded(5)
    mask = torch.rand(6, 4, 5, generator=g)
    destroyed, preserved = (4 * torch.randn(6, 3, generator=g) for _ in range(2))
    labels, real = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([True, True, True, False, False, False])
    found = build_strategy("masker", loss=loss).terms(mask, destroyed, preserved, labels, real)
    rows = zip(mask.tolist(), destroyed.tolist(), preserved.tolist(), labels.tolist(), real.tolist(), strict=True)
    expected = [slow(*row) for row in rows]
    assert set(found) == NAMES
    for name in NAMES:
        assert found[name].item() == pytest.approx(sum(e[name] for e in expected) / 6, rel=1e-4), name


@pytest.mark.parametrize("loss", ["code", "paper"])
def test_the_losses_are_finite_where_the_classifier_is_certain(loss):
    strategy = build_strategy("masker", loss=loss)
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]] * 2, requires_grad=True)
    for value in (0.0, 1.0):
        mask = torch.full((4, 8, 8), value, requires_grad=True)
        for real in (True, False):
            with torch.autocast("cpu", torch.bfloat16):
                terms = strategy.terms(mask, logits, logits.flip(1), torch.tensor([0, 0, 1, 1]), torch.full((4,), real))
            total = sum(terms.values())
            grads = torch.autograd.grad(total, [mask, logits])
            assert total.isfinite()
            assert all(g.isfinite().all() for g in grads)


def test_an_empty_mask_for_a_fake(monkeypatch):
    """Destroying nothing leaves the clean image, which must be told; showing nothing leaves the alternative, which must not."""
    options = {"image_noise": 0.0, "blur": 0.0, "color": 0.0, "color_noise": 0.0, "mask_fakes": 0.999999}
    strategy, made = ready(**options)
    made.eval()
    data = batch()

    def empty(self, f, targets, confidence):
        assert confidence == 0.0  # training takes nothing off the gate
        return torch.zeros(len(targets), 8, 8)

    monkeypatch.setattr(Head, "mask", empty)
    found = strategy(made, data, seeded(), 2)
    with torch.no_grad():
        clean, gray = made(data.images).logits, made(torch.full_like(data.images, 0.5)).logits
    own = functional.one_hot(data.labels).bool()
    lead, blind = (x[own] - x[~own] for x in (clean, gray))
    assert found["destroyed"].item() == pytest.approx((1 - lead).relu().mean().item(), abs=1e-5)
    assert found["preserved"].item() == pytest.approx(0.3 * (blind + 1).relu().mean().item(), abs=1e-5)
    assert found["area"].item() == pytest.approx(8 * 5e-4**0.3)
    assert found["smooth"].item() == 0.0


def test_weights_are_of_the_loss_unless_given():
    code, paper = build_strategy("masker"), build_strategy("masker", loss="paper", area=0.5)
    assert (code.destroy, code.preserve, code.area, code.smooth) == (1.0, 0.3, 8.0, 0.005)
    assert (paper.destroy, paper.preserve, paper.area, paper.smooth) == (5.0, 1.0, 0.5, 10.0)
    assert build_strategy("masker", sigma=5.0).settings()["sigma"] == 5.0
    assert build_strategy("masker", loss="paper").settings()["formula"] == "paper"


# Which class is asked for.


def test_fakes_are_any_other_class_at_the_stated_rate():
    labels = torch.arange(4000) % 4
    real, targets = asked(labels, 4, 0.3, seeded())
    assert torch.equal(targets == labels, real)
    assert real.float().mean().item() == pytest.approx(0.7, abs=0.03)
    further = (targets - labels)[~real] % 4
    assert (further.bincount(minlength=4)[1:] / len(further)).tolist() == pytest.approx([1 / 3] * 3, abs=0.05)
    assert not further.bincount()[0]
    assert asked(labels, 4, 0.0, seeded())[0].all()
    two = labels % 2
    real, targets = asked(two, 2, 0.5, seeded())
    assert torch.equal(targets[~real], 1 - two[~real])


# The phases.


def test_the_existence_loss_is_the_cross_entropy_of_the_two_logits():
    strategy, made = ready(label_smoothing=0.1)
    data = batch()
    found = strategy(made, data, seeded(4), 1)
    real, targets = asked(data.labels, 2, 0.5, seeded(4))
    mean = made.head.activity(made.encode(data.images), targets).mean((1, 2))
    smooth = real.float() * 0.9 + 0.05
    expected = functional.binary_cross_entropy_with_logits(mean, smooth)  # two logits (-e/2, e/2) are one, e
    assert set(found) == {"existence"}
    assert found["existence"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("share", "epochs", "expected"), [(0.5, 6, 3), (0.5, 5, 2), (0.74, 4, 3), (0.9, 2, 1), (0.01, 9, 1)])
def test_the_share_of_the_selector(share, epochs, expected):
    strategy = build_strategy("masker", selector_share=share)
    strategy.epochs = epochs
    assert strategy.selector_epochs() == expected


def learned(made):
    return {k: v.clone() for k, v in made.state_dict().items()}


def test_each_phase_moves_its_own_part_and_the_black_box_never_moves():
    start, seen = learned(net()), {}
    fitted_net = net()

    def look(row):
        seen[row["epoch"]] = learned(fitted_net)

    options = {"device": "cpu", "progress": False, "bf16": False, "on_epoch": look}
    fit(fitted_net, build_strategy("masker"), batches, epochs=4, **options)
    for epoch, before in ((2, start), (4, seen[2])):
        moved = {k.removeprefix("head.").split(".")[0] for k, v in seen[epoch].items() if not torch.equal(v, before[k])}
        assert moved == ({"selector"} if epoch == 2 else {"steps", "last"})


def test_the_gradient_stays_out_of_what_is_frozen():
    strategy, made = ready()
    sum(strategy(made, batch(), seeded(), 2).values()).backward()
    assert all(
        p.grad is None for p in (*made.backbone.parameters(), *made.head.base.parameters(), *made.head.selector.parameters())
    )
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in (*made.head.steps.parameters(), *made.head.last.parameters())
    )
    assert made.head.last.weight.grad.abs().sum() > 0


def test_the_classifier_stands_still_and_keeps_its_logits():
    made = build_localizer("efficientnet_lite0", "masker", 2, weights=None, head_options={"width": 8}, generator=seeded())
    images = torch.rand(4, 3, 32, 32, generator=seeded())
    before = made.eval()(images).logits
    data = Batch(images, torch.tensor([0, 1, 0, 1]), list("abcd"))
    fit(
        made,
        build_strategy("masker"),
        lambda e, g: [data],
        epochs=2,
        device="cpu",
        progress=False,
        bf16=False,
        channels_last=False,
    )
    assert torch.equal(made(images).logits, before)


def test_killed_and_continued_is_bit_equal(tmp_path):
    whole, rows = fitted(build_strategy("masker"), epochs=4)

    class Killed(Exception):
        pass

    def kill(row):
        if row["epoch"] == number:
            raise Killed

    for number in (1, 3):
        with pytest.raises(Killed):
            fitted(build_strategy("masker"), epochs=4, state_path=tmp_path / str(number), on_epoch=kill)
        made, again = fitted(build_strategy("masker"), epochs=4, state_path=tmp_path / str(number))
        assert [r["train_loss"] for r in again] == [r["train_loss"] for r in rows]
        assert all(torch.equal(v, whole.state_dict()[k]) for k, v in made.state_dict().items())


def test_the_same_generator_gives_the_same_losses():
    strategy, made = ready()
    made.eval()
    one, two, other = ({k: v.item() for k, v in strategy(made, batch(), seeded(s), 2).items()} for s in (1, 1, 2))
    assert one == two != other


# What it learns.


@pytest.mark.parametrize("options", [{}, {"loss": "paper", "smooth": 0.01, "area": 8.0}])
def test_the_mask_finds_the_square(options):
    made = net()
    box = [*made.backbone.parameters(), *made.head.base.parameters()]
    optimizer, g = torch.optim.AdamW(box, lr=1e-2), seeded(1)
    for _ in range(40):
        images, labels, _ = squares(16, g)
        loss = functional.cross_entropy(made(images).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    fit(
        made, build_strategy("masker", **options), lambda e, g: batches(e, g, steps=20), epochs=6,
        lr=5e-4, device="cpu", progress=False, bf16=False,
    )  # fmt: skip
    images, labels, where = squares(32, seeded(9))
    with torch.no_grad():
        f = made.encode(images)
        there = [made.head.existence(f, c).argmax(1) for c in (labels, 1 - labels)]
        mask = functional.interpolate(made.head.mask(f, labels)[:, None], (32, 32), mode="bilinear")[:, 0]
    assert there[0].float().mean() > 0.9
    assert there[1].float().mean() < 0.1
    assert mask[where].mean() > mask[~where].mean() + 0.2


# What it refuses.


def test_what_does_not_fit_is_refused():
    plain = Localizer(Tiny(), Gap(16, 2))
    with pytest.raises(ValueError, match=r"trains the head 'masker'; this net has Gap: set `head: masker`"):
        build_strategy("masker").attach(plain)
    with pytest.raises(ValueError, match="at least two classes"):
        build_strategy("masker").attach(net(classes=1))
    strategy, made = ready()
    bags = Batch(torch.rand(4, 3, 32, 32), torch.tensor([0, 1]), ["a", "b"], torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="these are bags of tiles"):
        strategy(made, bags, seeded(), 1)
    strategy.epochs = 1
    with pytest.raises(ValueError, match="epochs must be at least 2; got 1"):
        strategy(made, batch(), seeded(), 1)
    for options, message in (
        ({"loss": "papr"}, "unknown loss 'papr'; did you mean 'paper'"),
        ({"selector_share": 1.0}, r"selector_share must be in \(0, 1\); got 1.0"),
        ({"mask_fakes": 1.0}, r"mask_fakes must be in \[0, 1\)"),
        ({"power": 0.0}, r"power must be in \(0, 1\]"),
        ({"area": -1.0}, "area is a weight and must not be negative"),
        ({"blur": 2.0}, "blur is a probability"),
    ):
        with pytest.raises(ValueError, match=message):
            build_strategy("masker", **options)
