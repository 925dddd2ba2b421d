"""The head `readout`: what it reads, and the mean around each cell."""

from __future__ import annotations

import pytest
import torch

from wsol.models import Features, Readout

CHANNELS = (4, 6, 8)


def stages(seed=0):
    made = torch.Generator().manual_seed(seed)
    return Features(tuple(torch.rand(2, c, side, side + 1, generator=made) for c, side in zip(CHANNELS, (16, 8, 4), strict=True)))


@pytest.mark.parametrize("stage", [-1, -2, -3])
def test_pixels_are_a_linear_function_of_its_stage(stage):
    head, f = Readout(CHANNELS, 2, stage=stage, smooth=1), stages()
    weight = head.pixel.weight.flatten()
    expected = torch.einsum("bchw,c->bhw", f.stages[stage], weight) + head.pixel.bias
    torch.testing.assert_close(head(f).pixels[:, 0], expected)
    assert torch.equal(head(f).logits, head.base(f).logits)


def test_smoothing_is_a_mean_of_the_cells_there_are():
    rough, smooth = Readout(CHANNELS, 2, smooth=1), Readout(CHANNELS, 2, smooth=3)
    smooth.load_state_dict(rough.state_dict())
    plain, mean = rough(stages()).pixels[0, 0], smooth(stages()).pixels[0, 0]
    for y in range(plain.shape[0]):
        for x in range(plain.shape[1]):
            around = plain[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            torch.testing.assert_close(mean[y, x], around.mean())


def test_an_encode_without_its_stage_has_no_pixels():
    assert Readout(CHANNELS, 2, stage=-2)(Features(stages().stages[-1:])).pixels is None


@pytest.mark.parametrize(("option", "said"), [({"stage": 0}, "stage counts from the end"), ({"smooth": 2}, "an odd number")])
def test_what_no_head_can_be_is_said(option, said):
    with pytest.raises(ValueError, match=said):
        Readout(CHANNELS, 2, **option)
