from __future__ import annotations

import pytest

from wsol.training import warmup_cosine


def test_known_points():
    assert warmup_cosine(0.0, 0.2) == 0
    assert warmup_cosine(0.1, 0.2) == pytest.approx(0.5)
    assert warmup_cosine(0.2, 0.2) == pytest.approx(1)
    assert warmup_cosine(0.6, 0.2) == pytest.approx(0.5)  # half of the way from 0.2 to 1
    assert warmup_cosine(1.0, 0.2) == pytest.approx(0)
    assert warmup_cosine(0.0, 0.0) == 1


def test_rises_then_falls():
    values = [warmup_cosine(i / 100, 0.3) for i in range(101)]
    assert values[:31] == sorted(values[:31])
    assert values[30:] == sorted(values[30:], reverse=True)
    assert 0 <= min(values) <= max(values) <= 1


def test_out_of_range():
    with pytest.raises(ValueError, match="warmup"):
        warmup_cosine(0.5, 1.0)
    with pytest.raises(ValueError, match="progress"):
        warmup_cosine(1.5, 0.1)
