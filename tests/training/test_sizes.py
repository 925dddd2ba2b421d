from __future__ import annotations

import math

import pytest
import torch

from wsol.training.sizes import barrier_strength, log_barrier


@pytest.mark.parametrize("t", [0.5, 1.0, 5.0, 10.0])
def test_barrier_is_the_closed_form(t):
    points = [-1e6, -300.0, -1.0, -0.3, -1 / t**2 - 1e-3, -1 / t**2 + 1e-3, -1e-5, 0.0, 0.2, 5.0]
    expected = [-math.log(-z) / t if z <= -1 / t**2 else t * z - math.log(1 / t**2) / t + 1 / t for z in points]
    assert log_barrier(torch.tensor(points, dtype=torch.float64), t).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("t", [0.5, 1.0, 5.0, 10.0])
def test_value_and_slope_are_continuous_where_the_two_meet(t):
    edge = -1 / t**2
    z = torch.tensor([edge * (1 + 1e-9), edge, edge * (1 - 1e-9)], dtype=torch.float64, requires_grad=True)
    values = log_barrier(z, t)
    values.sum().backward()
    assert values.tolist() == pytest.approx([2 * math.log(t) / t] * 3, rel=1e-6, abs=1e-7)
    assert z.grad.tolist() == pytest.approx([t] * 3, rel=1e-6, abs=1e-7)


def test_slope_is_minus_one_over_tz_inside_and_t_outside():
    z = torch.tensor([-100.0, -1.0, 0.0, 100.0], dtype=torch.float64, requires_grad=True)
    log_barrier(z, 5.0).sum().backward()
    assert z.grad.tolist() == pytest.approx([1 / 500, 1 / 5, 5.0, 5.0])


def test_barrier_is_finite_in_half_precision_too():
    z = torch.tensor([-6e4, -1e-7, 0.0, 6e4], dtype=torch.float16, requires_grad=True)
    values = log_barrier(z, 10.0)
    values.sum().backward()
    assert values.dtype == torch.float32
    assert bool(values.isfinite().all() and z.grad.isfinite().all())


def test_strength_grows_by_the_epoch_up_to_its_end():
    t, seen = 5.0, []
    for _ in range(80):
        seen.append(t)
        t = min(t * 1.01, 10.0)
    assert [barrier_strength(epoch) for epoch in range(1, 81)] == pytest.approx(seen)
    assert barrier_strength(10**6) == 10.0
    assert barrier_strength(9, 3.0, 4.0, 1.0) == 3.0


def test_refusals():
    with pytest.raises(ValueError, match="positive and finite; got 0"):
        log_barrier(torch.zeros(1), 0.0)
    with pytest.raises(ValueError, match=r"start 5\.0, end 4\.0"):
        barrier_strength(1, 5.0, 4.0)
