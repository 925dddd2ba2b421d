from __future__ import annotations

import copy

import pytest
import torch

from wsol.data import Batch
from wsol.models import build_localizer, load_checkpoint, save_checkpoint
from wsol.training import build_strategy
from wsol.training.resume import weights_hash
from wsol.training.strategies.adl import AttentionDropout


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def localizer():
    return build_localizer("efficientnet_lite0", "gap", 2, weights=None, output_stride=8, generator=generator())


def batch(b=4, size=32):
    return Batch(torch.rand(b, 3, size, size, generator=generator(1)), torch.arange(b) % 2, list("abcdefgh"[:b]))


def test_the_drop_mask_by_hand():
    x = torch.tensor(
        [[[[1.0, 8.0], [9.0, 10.0]], [[1.0, 8.0], [9.0, 6.0]]], [[[0.1, 0.5], [0.2, 0.0]], [[0.1, 0.5], [0.2, 0.0]]]]
    )
    layer = AttentionDropout(1.0, 0.9)  # channel means 1 8 9 8, largest 9; .1 .5 .2 0, largest .5
    left = torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]], [[[1.0, 0.0], [1.0, 1.0]]]])
    assert torch.equal(layer(x), x * left)
    assert torch.equal(layer.kept, left)
    assert torch.equal(AttentionDropout(1.0, 0.85)(x)[0], x[0] * torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_the_importance_map_is_the_sigmoid_of_the_channel_mean():
    x = torch.randn(3, 5, 4, 6, generator=generator(), dtype=torch.float64).float().requires_grad_()
    out = AttentionDropout(0.0, 0.9)(x)
    expected = x / (1 + torch.exp(-x.mean(1, keepdim=True)))
    assert torch.allclose(out, expected, atol=1e-6)
    weights = torch.rand(out.shape, generator=generator())
    (ours,) = torch.autograd.grad((out * weights).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), x)
    assert torch.allclose(ours, theirs, atol=1e-6)  # also through the map


def test_nothing_is_dropped_where_no_mean_is_positive():
    x = -torch.rand(2, 3, 4, 4, generator=generator())
    assert torch.equal(AttentionDropout(1.0, 0.9)(x), x)
    assert torch.equal(AttentionDropout(1.0, 1.0)(torch.zeros(1, 3, 4, 4)), torch.zeros(1, 3, 4, 4))


def test_half_precision_stays_and_is_finite():
    x = torch.full((1, 4, 2, 2), 3e38, dtype=torch.bfloat16)
    for rate in (0.0, 1.0):
        out = AttentionDropout(rate, 0.9)(x)
        assert out.dtype == torch.bfloat16
        assert bool(out.isfinite().all())


def test_how_often_the_drop_mask_is_taken():
    layer, x = AttentionDropout(0.7, 0.9), torch.ones(1, 1, 1, 1)
    layer.generator = generator()
    dropped = [float(layer(x)) == 0 for _ in range(1000)]
    assert sum(dropped) / 1000 == pytest.approx(0.7, abs=0.06)


def test_the_layers_stand_where_they_should_and_only_in_training():
    net, strategy = localizer(), build_strategy("adl", stages=[1, -1], drop_rate=1.0)
    plain = net.eval().encode(batch().images)
    strategy.attach(net)
    strategy.attach(net)  # as after a resume
    assert sorted(net.between) == [1, 4]
    assert all(torch.equal(a, b) for a, b in zip(net.encode(batch().images).stages, plain.stages, strict=True))
    net.train()
    changed = net.encode(batch().images).stages
    drop = AttentionDropout(1.0, 0.9)
    assert torch.equal(changed[0], plain.stages[0])
    assert torch.equal(changed[1], drop(plain.stages[1]))
    assert torch.equal(changed[3], net.encode(changed[1], start=2).stages[1])  # what is above sees the dropped features
    assert torch.equal(changed[4], drop(net.backbone.stage(4, changed[3])))
    with pytest.raises(ValueError, match="no stage 7"):
        build_strategy("adl", stages=[7]).attach(net)


def test_the_checkpoint_has_no_trace_of_it(tmp_path):
    net = localizer()
    names, start = set(net.state_dict()), weights_hash(net)
    build_strategy("adl").attach(net)
    assert set(net.state_dict()) == names
    assert weights_hash(net) == start
    again = load_checkpoint(save_checkpoint(net, tmp_path / "x.safetensors")[0])
    assert not again.between
    assert torch.equal(again(batch().images).logits, net.eval()(batch().images).logits)


def test_all_draws_come_from_the_generator(toy):
    net, strategy = toy.localizer(), build_strategy("adl", drop_rate=0.5)
    strategy.attach(net)
    seen = []
    for seed in range(12):
        pair = []
        for other in range(2):
            torch.manual_seed(other)
            pair.append(strategy(net, batch(), generator(seed), 1)["cross_entropy"].item())
        assert pair[0] == pair[1]
        seen.append(pair[0])
    assert len(set(seen)) > 3
    copy.deepcopy(net)


def test_a_resumed_training_is_bit_equal(run, toy, tmp_path):
    def interrupted(epoch, draws):
        if epoch == 3:
            raise KeyboardInterrupt
        return toy.batches(epoch, draws)

    def go(**options):
        return run(net=toy.localizer(), strategy=build_strategy("adl", drop_rate=0.5), epochs=4, **options)[0]

    with pytest.raises(KeyboardInterrupt):
        go(batches=interrupted, state_path=tmp_path)
    assert weights_hash(go(state_path=tmp_path)) == weights_hash(go())


def test_the_picture_shows_what_all_layers_leave():
    net, strategy = localizer(), build_strategy("adl", drop_rate=1.0, stages=[2, 4])
    strategy.attach(net)
    with torch.no_grad():
        kept = strategy.kept(net, batch(), generator())
        stages = net.encode(batch().images).stages
    undropped = net.backbone.stage(2, stages[1]).mean(1, keepdim=True)
    first = (undropped < 0.9 * undropped.amax((2, 3), keepdim=True)).float()
    second = net.between[4].kept
    assert kept.shape == first.shape == (4, 1, 4, 4)
    assert second.shape == (4, 1, 4, 4)
    assert torch.equal(kept, first * second)
    build_strategy("adl", drop_rate=0.0, stages=[2, 4]).attach(net)
    assert strategy.kept(net, batch(), generator()) is None


def test_settings_and_refusals():
    assert build_strategy("adl", stages=(1, 2)).settings()["stages"] == [1, 2]
    with pytest.raises(ValueError, match="at least one stage"):
        build_strategy("adl", stages=[])
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\]; got 1\.2"):
        build_strategy("adl", threshold=1.2)
