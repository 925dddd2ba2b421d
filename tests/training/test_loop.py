from __future__ import annotations

import csv
import math

import pytest
import torch

from wsol.training import CHECKPOINTS, Criterion, Strategy, choose_device
from wsol.training.schedule import warmup_cosine


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns(run, toy):
    net, history = run(epochs=8, validate=toy.validate, lr=3e-3, bf16=False)
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert history[-1]["valcl_accuracy"] == 1
    assert not net.training


def test_same_seed_same_weights_other_seed_other_weights(run):
    first, second, third = (weights(run(seed=seed)[0]) for seed in (1, 1, 2))
    assert same(first, second)
    assert not same(first, third)


def test_the_callers_random_state_is_untouched_and_does_not_matter(run):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights(run()[0])
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert same(first, weights(run()[0]))  # dropout draws from (seed, epoch) alone


def test_rates_follow_the_schedule(run, toy):
    _, history = run(epochs=3, warmup=0.25, lr=2e-3)
    expected = [2e-3 * warmup_cosine((epoch - 0.5 / 4) / 3, 0.25) for epoch in (1, 2, 3)]  # the middle of the last of 4 steps
    assert [row["lr"] for row in history] == pytest.approx(expected)


def test_first_step_of_adamw_in_closed_form(run, toy):
    # Adam's first step is lr * sign(gradient): the head moves head_lr_factor times farther than the rest.
    start = weights(toy.Net())
    net, _ = run(epochs=1, batches=lambda e, g: toy.batches(e, g, steps=1), warmup=0.0, weight_decay=0.0, bf16=False)
    moved = {name: (value - start[name]).abs().max().item() for name, value in weights(net).items()}
    rate = 1e-3 * 0.5  # half a step into a cosine of one step
    assert moved["backbone.4.weight"] == pytest.approx(rate, rel=1e-3)
    assert moved["head.linear.weight"] == pytest.approx(10 * rate, rel=1e-3)


def test_history_file_is_the_history(run, toy, tmp_path):
    seen = []
    _, history = run(validate=toy.validate, history_path=tmp_path / "a" / "history.csv", on_epoch=seen.append)
    with (tmp_path / "a" / "history.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == history == seen
    assert list(rows[0]) == ["epoch", "train_loss", "lr", "seconds", "valcl_accuracy", "valcl_loss"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["history.csv"]


def test_parts_of_the_loss_are_reported(run):
    class TwoParts(Strategy):
        def loss(self, net, batch, generator, epoch):
            return {"a": super().loss(net, batch, generator, epoch)["cross_entropy"], "b": torch.tensor(2.0)}

    _, history = run(strategy=TwoParts())
    assert history[0]["train_b"] == 2
    assert history[0]["train_loss"] == pytest.approx(history[0]["train_a"] + 2)


def test_strategies_own_parameters_learn_and_prepare_runs_once(run):
    class Owner(Strategy):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(2, 2))
            self.register_buffer("prepared", torch.zeros(()))

        def prepare(self, net, batches):
            self.prepared += len(batches)

        def loss(self, net, batch, generator, epoch):
            return {"all": super().loss(net, batch, generator, epoch)["cross_entropy"] + self.scale.square().mean()}

    strategy = Owner()
    run(strategy=strategy)
    assert strategy.prepared.item() == 4
    assert (strategy.scale < 1).all()


def test_kept_epochs_have_the_weights_of_their_epoch(run, toy):
    values, seen, saved = {1: 0.2, 2: 0.9, 3: 0.5}, {}, {}

    def validate(net):
        seen[len(seen) + 1] = weights(net)
        return {"m": values[len(seen)], "constant": 1.0}

    keep = {
        "best": Criterion("m"),
        "least": Criterion("m", higher=False),
        "tie": Criterion("constant"),
        "last": CHECKPOINTS["last"],
    }
    net, _ = run(
        epochs=3,
        validate=validate,
        keep=keep,
        save=lambda name, net, epoch, metrics: saved.update({name: (epoch, weights(net), metrics)}),
    )
    assert {name: epoch for name, (epoch, _, _) in saved.items()} == {"best": 2, "least": 1, "tie": 1, "last": 3}
    assert all(same(kept, seen[epoch]) for epoch, kept, _ in saved.values())
    assert saved["best"][2] == {"m": 0.9, "constant": 1.0}
    assert same(weights(net), seen[3])


def test_the_average_is_what_is_validated_and_kept(run):
    seen, saved = [], []
    net, _ = run(ema=0.99, validate=lambda net: seen.append(weights(net)) or {}, save=lambda *a: saved.append(weights(a[1])))
    plain, _ = run()
    assert same(seen[-1], saved[0])
    assert same(seen[-1], weights(net))
    assert not same(seen[-1], weights(plain))


def test_clipping_limits_the_gradient(toy):
    from wsol.training.epoch import Step, _average_gradient
    from wsol.training.optimizer import build_optimizer

    net = toy.Net().eval()
    optimizer = build_optimizer(net, torch.nn.Module(), lr=1, head_lr_factor=1, weight_decay=0)
    norms = []
    for clip in (None, 0.5):
        loss = 100 * net(torch.ones(2, 3, 16, 16)).logits.square().sum()
        optimizer.zero_grad()
        loss.backward()
        how = Step(torch.device("cpu"), 1, 0.0, clip, bf16=False, channels_last=False, steps=1)
        _average_gradient(optimizer, 1.0, how, "here", ["s"])
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters())))
    assert norms[0] > 1
    assert norms[1] == pytest.approx(0.5, rel=1e-4)


def nan_batches(toy, where):
    def stream(epoch, generator):
        items = toy.batches(epoch, generator)
        if epoch == where[0]:
            items[where[1] - 1].images[3] = float("nan")
        return items

    return stream


def test_non_finite_loss_names_epoch_step_and_samples(run, toy):
    with pytest.raises(RuntimeError, match=r"not finite \(cross_entropy nan\) at epoch 2/2, step 3/4, samples e2s2n0, .*e2s2n7"):
        run(batches=nan_batches(toy, (2, 3)))


def test_non_finite_gradient_stops_before_the_weights_are_hit(run, toy):
    class Cusp(Strategy):
        def loss(self, net, batch, generator, epoch):  # finite at 0, its slope is not
            return {
                "cusp": (net.head.linear.weight * 0).sum().abs().sqrt()
                * super().loss(net, batch, generator, epoch)["cross_entropy"]
            }

    net = toy.Net()
    with pytest.raises(RuntimeError, match=r"gradient is not finite .* epoch 1/2, step 1/4"):
        run(net=net, strategy=Cusp())
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_names_what_to_lower(run, error):
    class Greedy(Strategy):
        def loss(self, net, batch, generator, epoch):
            raise error

    with pytest.raises(RuntimeError, match=r"step 1/4 with 8 images of 16 x 16 px; lower batch_size or crop"):
        run(strategy=Greedy())


def test_single_class(run, toy):
    def one_class(epoch, generator):
        return [toy.Batch(b.images, torch.ones_like(b.labels), b.samples) for b in toy.batches(epoch, generator)]

    with pytest.raises(ValueError, match="all 32 training labels are class 1"):
        run(batches=one_class)


def test_batches_need_a_length_which_may_be_exceeded(run, toy):
    class Short(list):
        def __len__(self):
            return 3

    _, listed = run()
    _, streamed = run(batches=lambda e, g: iter(toy.batches(e, g)), steps=4)
    assert [row["train_loss"] for row in listed] == [row["train_loss"] for row in streamed]
    _, history = run(epochs=1, batches=lambda e, g: Short(toy.batches(e, g)))
    assert history[0]["lr"] == pytest.approx(0, abs=1e-9)  # the fourth of three steps
    with pytest.raises(TypeError, match="something with a length"):
        run(batches=lambda e, g: iter(toy.batches(e, g)))
    for nothing in (lambda e, g: [], lambda e, g: iter([])):
        with pytest.raises(ValueError, match="no training batches"):
            run(batches=nothing, steps=4)
    with pytest.raises(ValueError, match="no training batches"):
        run(batches=lambda e, g: [])


def test_settings_are_checked_before_training(run, toy):
    with pytest.raises(ValueError, match="there is no validation"):
        run(keep={"b-cl": CHECKPOINTS["b-cl"]})
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        run(epochs=0)
    with pytest.raises(TypeError, match="unknown option 'warm_up' of fit; did you mean 'warmup'"):
        run(warm_up=0.1)
    with pytest.raises(ValueError, match="clip"):
        run(clip=0.0)
    with pytest.raises(RuntimeError, match="'m' was never a number"):
        run(keep={"x": Criterion("m")}, validate=lambda net: {"m": math.nan})


def test_devices(monkeypatch):
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(RuntimeError, match="sees no CUDA device"):
        choose_device("cuda:1")


def test_a_log_has_one_line_per_epoch_and_a_terminal_a_bar(run, toy, capsys):
    run(progress=None, validate=toy.validate)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "train_loss" in lines[0]
    assert "valcl_accuracy" in lines[0]
    run(progress=False)
    assert capsys.readouterr().err == ""
    run(progress=True)
    assert "epoch 2/2" in capsys.readouterr().err
