"""The masking network: gate and mask written out, what it leaves to its base, sizes at every stride."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wsol.models import Features, build_localizer, load_checkpoint, save_checkpoint
from wsol.models.heads.linear import Gap, Lse
from wsol.models.heads.masking import Masker, _Step

CHANNELS = (4, 6, 5, 8)


def seeded(seed, *shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def features(b=2, side=32, strides=(2, 4, 8, 8), dtype=torch.float32):
    sizes = enumerate(zip(CHANNELS, strides, strict=True))
    return Features(tuple(seeded(i, b, c, side // s, side // s, dtype=dtype) for i, (c, s) in sizes))


def head(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Masker(CHANNELS, 3, width=8, **options).eval()


def test_logits_maps_and_bags_are_those_of_the_base():
    net, f = head(base="lse", base_options={"r": 2.0, "bag_top": 1.0}), features(b=4)
    plain = Lse(8, 3, r=2.0, bag_top=1.0).eval()
    plain.load_state_dict(net.base.state_dict())
    groups = torch.tensor([0, 0, 0, 1])
    assert torch.equal(net(f).logits, plain(f).logits)
    assert torch.equal(net(f).maps, plain(f).maps)
    assert torch.equal(net(f, groups=groups).logits, plain(f, groups=groups).logits)
    assert torch.equal(net.class_maps(f), plain.class_maps(f))
    assert net(f).pixels is None


def test_the_decoder_does_not_run_for_logits():
    net = head()
    net.steps = torch.nn.ModuleList()  # would be missed
    assert net(features()).logits.shape == (2, 3)


def test_activity_and_existence_by_hand():
    net, f = head(), features()
    for i, c in enumerate([2, 0]):
        slow = sum(net.selector.weight[c, k] * f.last[i, k] for k in range(8))
        targets = torch.tensor([2, 0])
        torch.testing.assert_close(net.activity(f, targets)[i], slow)
        torch.testing.assert_close(net.existence(f, targets)[i], torch.stack([-slow.mean() / 2, slow.mean() / 2]))


def test_the_embedding_starts_at_one_over_the_root_of_the_channels():
    weight = Masker((4, 4, 1024), 200).selector.weight
    assert weight.std().item() == pytest.approx(1024**-0.5, rel=0.01)
    assert abs(weight.mean().item()) < 1e-3


def test_the_gate_multiplies_the_last_stage():
    """A mask of gated features is the mask of features gated by hand, under a gate that is open."""
    net, f, targets = head(), features(), torch.tensor([2, 0])
    gate = torch.sigmoid(net.activity(f, targets) - 1.5)[:, None]
    by_hand = Features((*f.stages[:-1], f.last * gate))
    expected = net.mask(by_hand, targets, confidence=-1e4)  # the sigmoid of 1e4 is 1
    torch.testing.assert_close(net.mask(f, targets, confidence=1.5), expected)
    assert torch.equal(net.mask(f, targets), net.mask(f, targets, confidence=6.0))
    closed = [net.mask(f, torch.tensor([c, c]), confidence=1e4) for c in range(3)]
    assert torch.equal(closed[0], closed[1])  # nothing comes through: every class gets the same


def channels_out(net, f, targets):
    """What the last convolution gives, caught by handing it on."""
    found = []
    hook = net.last.register_forward_hook(lambda module, inputs, output: found.append(output))
    mask = net.mask(f, targets)
    hook.remove()
    return found[0], mask


def test_the_mask_is_the_share_of_a_and_swapping_the_two_channels_gives_the_rest():
    net, f, targets = head().double(), features(dtype=torch.float64), torch.tensor([1, 2])
    out, mask = channels_out(net, f, targets)
    a, b = out.abs().unbind(1)
    torch.testing.assert_close(mask, a / (a + b), rtol=0, atol=5e-4 / (a + b).min().item())
    with torch.no_grad():
        net.last.weight.copy_(net.last.weight.flip(0))
        net.last.bias.copy_(net.last.bias.flip(0))
    torch.testing.assert_close(net.mask(f, targets), 1 - mask)


def test_two_silent_channels_give_a_half_and_a_finite_slope():
    net, f, targets = head(), features(), torch.tensor([1, 2])
    torch.nn.init.zeros_(net.last.weight)
    torch.nn.init.zeros_(net.last.bias)
    mask = net.mask(f, targets)
    assert (mask == 0.5).all()
    mask.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.last.parameters())


@pytest.mark.parametrize("scale", [0.0, 1e4])
@pytest.mark.parametrize("activation", ["ratio", "sigmoid"])
def test_masks_stay_finite_and_in_the_unit_interval(scale, activation):
    net, f = head(activation=activation), features()
    mask = net.mask(Features(tuple(s * scale for s in f.stages)), torch.tensor([0, 1]))
    assert ((mask >= 0) & (mask <= 1)).all()
    mask.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.steps.parameters())


def test_the_sigmoid_reads_the_first_channel():
    net, f, targets = head(activation="sigmoid"), features(), torch.tensor([1, 2])
    out, mask = channels_out(net, f, targets)
    torch.testing.assert_close(mask, torch.sigmoid(out[:, 0] / 2))


def test_a_mask_is_its_own_images_and_its_own_class():
    net, f, targets = head(), features(), torch.tensor([1, 2])
    both = net.mask(f, targets, 0.0)
    for i, c in enumerate([1, 2]):
        alone = Features(tuple(s[i : i + 1] for s in f.stages))
        torch.testing.assert_close(net.mask(alone, torch.tensor([c]), 0.0)[0], both[i])
        assert not torch.allclose(net.mask(alone, torch.tensor([0]), 0.0)[0], both[i])


def test_the_gradient_reaches_the_decoder_and_leaves_the_embedding_alone():
    net, f, targets = head(), features(), torch.tensor([1, 2])
    net.mask(f, targets).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.last.parameters())
    assert all(p.grad is not None for p in net.steps.parameters())
    assert net.selector.weight.grad is None
    net.existence(f, targets).square().sum().backward()
    assert net.selector.weight.grad[1:].abs().sum() > 0
    assert all(p.grad is None for p in net.base.parameters())


@pytest.mark.parametrize("same", [False, True])
def test_a_step_lays_sub_pixels_where_they_belong(same):
    """Four channels that carry 1, 2, 3, 4 become 2 x 2 blocks, cut to a finer stage of odd size; averaged at equal stride."""
    step = _Step(1, 1, 4).eval()
    x, finer = torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3) if same else torch.zeros(1, 1, 5, 6)
    step.widen = torch.nn.Conv2d(1, 16, 1)
    torch.nn.init.zeros_(step.widen.weight)
    step.widen.bias.data.copy_(torch.arange(16.0))
    step.shortcut, step.bottleneck = torch.nn.Identity(), torch.nn.Sequential(_Nothing())
    y = step(x, finer)
    assert y.shape == (1, 5, *finer.shape[2:])
    assert (y[:, 4] == 0).all()  # the finer stage, appended
    if same:
        assert (y[0, :, 0, 0] == torch.tensor([1.5, 5.5, 9.5, 13.5, 0.0])).all()
    else:
        block = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
        assert torch.equal(y[0, 1], (block + 4).repeat(3, 3)[:5, :6])


class _Nothing(torch.nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_masks_lie_on_the_second_stage_at_every_output_stride(stride):
    net = build_localizer("efficientnet_lite0", "masker", 2, weights=None, output_stride=stride, head_options={"width": 8}).eval()
    f = net.encode(torch.rand(1, 3, 70, 97, generator=torch.Generator().manual_seed(0)))
    mask = net.head.mask(f, torch.tensor([1]))
    assert mask.shape == (1, *f.stages[1].shape[2:]) == (1, 18, 25)
    assert mask.std() > 0
    moved = torch.roll(f.stages[1], 2, 3)  # the finest skip is read
    assert not torch.allclose(net.head.mask(Features((f.stages[0], moved, *f.stages[2:])), torch.tensor([1])), mask)


def test_half_precision_features_and_autocast_give_float32():
    net, f, targets = head(), features(), torch.tensor([1, 2])
    half = Features(tuple(s.bfloat16() for s in f.stages))
    exact = Features(tuple(s.bfloat16().float() for s in f.stages))
    assert torch.equal(net.mask(half, targets), net.mask(exact, targets))
    assert torch.equal(net.existence(half, targets), net.existence(exact, targets))
    with torch.autocast("cpu", torch.bfloat16):
        rough = net.mask(f, targets)
    assert rough.dtype == torch.float32
    assert functional.l1_loss(rough, net.mask(f, targets)) < 0.02


def test_a_checkpoint_brings_the_same_masks(tmp_path):
    options = {"base": "lse", "base_options": {"r": 4.0}, "width": 8, "confidence": 2.0}
    net = build_localizer("efficientnet_lite0", "masker", 2, weights=None, head_options=options).eval()
    loaded = load_checkpoint(save_checkpoint(net, tmp_path / "m.safetensors")[0])
    x = torch.rand(1, 3, 64, 64)
    one, two = (n.head.mask(n.encode(x), torch.tensor([1])) for n in (net, loaded))
    assert torch.equal(one, two)
    assert isinstance(loaded.head.base, Lse)
    assert loaded.head.confidence == 2.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"width must be a positive multiple of 4.*got 6"):
        Masker(CHANNELS, 2, width=6)
    with pytest.raises(ValueError, match="unknown activation 'softmax'"):
        Masker(CHANNELS, 2, activation="softmax")
    with pytest.raises(ValueError, match="this backbone has 1 stage"):
        Masker((8,), 2)
    with pytest.raises(ValueError, match="unknown head 'gpa'; did you mean 'gap'"):
        Masker(CHANNELS, 2, base="gpa")
    with pytest.raises(TypeError, match="option 'r' of head 'gap'"):
        Masker(CHANNELS, 2, base_options={"r": 3})
    f = features()
    with pytest.raises(ValueError, match="reads the last 3 stages; the features hold 2"):
        head().mask(Features(f.stages[-2:]), torch.tensor([0, 1]))
    assert head().mask(Features(f.stages[1:]), torch.tensor([0, 1])).shape == (2, 8, 8)
    assert isinstance(head().base, Gap)
