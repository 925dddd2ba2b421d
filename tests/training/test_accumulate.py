"""Several batches per step: the step of one larger batch."""

from __future__ import annotations

import pytest
import torch

from wsol.training import Strategy
from wsol.training.resume import weights_hash


def cut(toy, sizes):
    """Batches of these sizes from the same twelve images; nothing is left over."""

    def batches(epoch, generator):
        labels = torch.arange(12) % 2
        images, names = toy.images_of(labels, generator), [f"e{epoch}n{i}" for i in range(12)]
        pieces = zip(images.split(sizes), labels.split(sizes), range(len(sizes)), strict=True)
        ends = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        return [toy.Batch(x, y, names[ends[i] : ends[i + 1]]) for x, y, i in pieces]

    return batches


@pytest.mark.parametrize(
    ("small", "accumulate", "large"),
    [([4, 4, 4], 2, [8, 4]), ([2] * 6, 3, [6, 6]), ([4, 2, 4, 2], 2, [6, 6]), ([3, 1, 2, 1, 5], 3, [6, 6]), ([12], 4, [12])],
)
def test_small_batches_are_a_large_one(small, accumulate, large, run, toy):

    def one(sizes, accumulate):
        net, rows = run(
            net=toy.localizer(), batches=cut(toy, sizes), accumulate=accumulate, epochs=3, lr=1e-2, clip=0.5, bf16=False, ema=0.5
        )
        return net.state_dict(), rows

    (weights, rows), (expected, wanted) = one(small, accumulate), one(large, 1)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)
    assert [row["lr"] for row in rows] == [row["lr"] for row in wanted]
    assert [row["train_loss"] for row in rows] == pytest.approx([row["train_loss"] for row in wanted], rel=1e-4)


def test_the_gradient_of_a_step_is_the_mean_over_its_labels(toy):
    from wsol.training.epoch import Step, _average_gradient, _learn
    from wsol.training.optimizer import build_optimizer

    net, strategy, draws = toy.localizer(), Strategy(), torch.Generator()
    optimizer = build_optimizer(net, strategy, lr=1, head_lr_factor=1, weight_decay=0)
    how = Step(torch.device("cpu"), 1, 0.0, None, bf16=False, channels_last=False, steps=1, accumulate=3)
    batches = cut(toy, [7, 4, 1])(1, torch.Generator().manual_seed(0))
    for batch in batches:
        _learn(net, strategy, batch, draws, 1, how, "here")
    _average_gradient(optimizer, 12.0, how, "here", [])
    found = [p.grad.clone() for p in net.parameters()]
    optimizer.zero_grad()
    whole = cut(toy, [12])(1, torch.Generator().manual_seed(0))[0]
    torch.nn.functional.cross_entropy(net(whole.images).logits, whole.labels).backward()
    for slope, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(slope, p.grad, rtol=1e-5, atol=1e-7)


def test_one_batch_per_step_is_left_as_it_is(run, toy):
    """No weight is multiplied in and divided out again: twelve is no power of two."""
    from wsol.training.epoch import Step

    batch = cut(toy, [12])(1, torch.Generator())[0]
    how = {
        "device": torch.device("cpu"),
        "epochs": 1,
        "warmup": 0.0,
        "clip": None,
        "bf16": False,
        "channels_last": False,
        "steps": 1,
    }
    assert Step(**how).weight(batch) == 1
    assert Step(**how, accumulate=2).weight(batch) == 12


def test_a_resumed_training_must_accumulate_alike(run, toy, tmp_path, capsys):
    run(net=toy.localizer(), accumulate=2, state_path=tmp_path)
    other = run(net=toy.localizer(), accumulate=3, state_path=tmp_path)[0]
    assert "accumulate: 2 -> 3" in capsys.readouterr().err
    assert weights_hash(other) == weights_hash(run(net=toy.localizer(), accumulate=3)[0])


def test_errors_name_step_and_samples(run, toy):
    def broken(epoch, generator):
        batches = cut(toy, [4, 4, 4])(epoch, generator)
        batches[2].images[1] = torch.nan
        return batches

    with pytest.raises(RuntimeError, match=r"not finite \(cross_entropy nan\) at epoch 1/2, step 2/2, samples e1n8, e1n9, e1n10"):
        run(net=toy.localizer(), batches=broken, accumulate=2)
    with pytest.raises(ValueError, match="accumulate is the number of batches per step, at least 1; got 0"):
        run(accumulate=0)
