from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from wsol.training import balanced_weights, cross_entropy
from wsol.training.losses import binary_cross_entropy


def logits_and_labels(seed=0, n=7, k=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, generator=g) * 3, torch.randint(0, k, (n,), generator=g)


def test_closed_form_of_two_equal_logits():
    assert cross_entropy(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])).item() == pytest.approx(math.log(2))


def test_agrees_with_torch_where_the_definitions_agree():
    logits, labels = logits_and_labels()
    for smoothing in (0.0, 0.2):
        reference = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        assert cross_entropy(logits, labels, label_smoothing=smoothing).item() == pytest.approx(reference.item(), 1e-6)
    w = [0.5, 2.0, 3.0]
    reference = functional.cross_entropy(logits, labels, torch.tensor(w), reduction="sum") / len(labels)
    assert cross_entropy(logits, labels, class_weights=w).item() == pytest.approx(reference.item(), 1e-6)


def test_weighted_and_smoothed_equals_the_slow_formula():
    logits, labels = logits_and_labels(1)
    w, s, k = [0.5, 2.0, 3.0], 0.3, 3
    total = 0.0
    for row, y in zip(logits.double().tolist(), labels.tolist(), strict=True):
        norm = math.log(sum(math.exp(z) for z in row))
        q = [(1 - s) * (c == y) + s / k for c in range(k)]
        total += w[y] * sum(-q[c] * (row[c] - norm) for c in range(k))
    assert cross_entropy(logits, labels, label_smoothing=s, class_weights=w).item() == pytest.approx(total / len(labels), 1e-5)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_balanced_weights_balance_batches_of_any_size(size):
    """Six of class 0, two of class 1, in batches of `size`: the mean loss is the mean over classes of their mean losses."""
    logits, _ = logits_and_labels(n=8, k=2)
    labels = torch.tensor([0, 0, 1, 0, 0, 0, 1, 0])
    weights = balanced_weights(labels.tolist(), 2)
    parts = [cross_entropy(z, y, class_weights=weights) for z, y in zip(logits.split(size), labels.split(size), strict=True)]
    apart = [functional.cross_entropy(logits[labels == c], labels[labels == c]) for c in (0, 1)]
    assert torch.stack(parts).mean().item() == pytest.approx(torch.stack(apart).mean().item(), 1e-6)


def test_half_precision_logits_are_lifted():
    logits, labels = logits_and_labels()
    loss = cross_entropy(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(cross_entropy(logits.bfloat16().float(), labels).item())


def test_bad_input_is_named():
    logits, labels = logits_and_labels()
    with pytest.raises(ValueError, match=r"logits \(7, 3\) and labels \(6,\)"):
        cross_entropy(logits, labels[:6])
    with pytest.raises(ValueError, match=r"0\.\.2; got \[5\]"):
        cross_entropy(logits, torch.full((7,), 5))
    with pytest.raises(ValueError, match="label_smoothing"):
        cross_entropy(logits, labels, label_smoothing=1.0)
    with pytest.raises(ValueError, match="3 positive numbers"):
        cross_entropy(logits, labels, class_weights=[1.0, 1.0])


def test_balanced_weights():
    labels = [0] * 6 + [1] * 2
    weights = balanced_weights(labels, 2)
    assert weights == pytest.approx([8 / 12, 2.0])
    assert sum(weights[y] for y in labels) / len(labels) == pytest.approx(1)
    with pytest.raises(ValueError, match="class 1 of 2 has no training sample"):
        balanced_weights([0, 0], 2)


def test_several_labels_are_a_question_each():
    logits, labels = torch.tensor([[0.0, 2.0], [-1.0, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    p = torch.sigmoid(logits)
    for s in (0.0, 0.2):
        t = (1 - s) * labels + s / 2
        expected = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
        assert binary_cross_entropy(logits, labels, label_smoothing=s).item() == pytest.approx(expected.item(), 1e-6)
    assert binary_cross_entropy(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]])).item() == pytest.approx(1e4)
    with pytest.raises(ValueError, match=r"expected logits and labels \(n, k\)"):
        binary_cross_entropy(logits, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="label_smoothing must lie"):
        binary_cross_entropy(logits, labels, label_smoothing=1.0)
