from __future__ import annotations

import pytest
import torch

from wsol.cams import METHODS, cams, draw_cells, route
from wsol.models import Features, build_localizer

from .conftest import tiny

OPTIONS = {m: {"base": "grad-cam"} for m in ("smooth", "tta", "sess")}
PLAIN = sorted(set(METHODS) - {"masker", "fused"})
LOCAL = ["cam", "native", "grad-cam", "hirescam", "xgrad-cam", "layer-cam"]
OF_ALL_CELLS = ["grad-cam++", "eigen-cam", "eigen-grad-cam", "ablation-cam", "recipro-cam", "fd-cam"]


def routes(net):
    found = {m: route(m, net, OPTIONS.get(m)) for m in PLAIN}
    return {kind: sorted(m for m, r in found.items() if r.kind == kind) for kind in ("cells", "slide", "tile")}


def test_at_a_gap_head_slopes_are_known_beforehand(gap_net):
    found = routes(gap_net)
    assert found["cells"] == sorted(LOCAL)
    assert found["slide"] == sorted(OF_ALL_CELLS)


def test_at_a_pooling_head_only_class_maps_are_local(lse_net):
    found = routes(lse_net)
    assert found["cells"] == ["cam", "native"]
    assert found["slide"] == sorted({*LOCAL, "grad-cam++", "eigen-cam", "eigen-grad-cam"} - {"cam", "native"})


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("layer-cam", {"layers": [-2, -1]}, "finer stages"),
        ("grad-cam", {"layers": [0]}, "finer stages"),
        ("recipro-cam", {"mask": "gaussian"}, "neighbors"),
        ("recipro-cam", {"closed_form": False}, "runs the head"),
        ("gradient", {}, "reads the image"),
        ("shap-cam", {}, "neighbors"),  # more than 256 cells are played by squares
    ],
)
def test_the_reason_for_tiles(gap_net, method, options, reason):
    kind, said = route(method, gap_net, options)
    assert kind == "tile"
    assert reason in said


def test_heads_that_look_around_are_found_out():
    nets = {
        head: build_localizer("efficientnet_lite0", head, 2, weights=None, generator=torch.Generator().manual_seed(0)).eval()
        for head in ("acol", "decoded", "deep-mil")
    }
    assert route("native", nets["acol"]).kind == "tile"  # 3 x 3 convolutions, min-max
    assert route("native", nets["decoded"]).kind == "tile"  # a decoder over all stages
    assert route("cam", nets["decoded"]).kind == "cells"  # whose class maps are those of its base
    assert route("native", nets["deep-mil"]).kind == "slide"  # a softmax over all cells


@pytest.mark.parametrize("size", [(40, 56), (37, 51)])
def test_parts_are_parts_of_the_whole_map(gap_net, size):
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2))
    target = torch.tensor([2])
    whole = cams(LOCAL, gap_net, images, target)
    last = gap_net.encode(images).last.detach()
    for part in (slice(0, 2), slice(1, 4), slice(3, 5)):
        drawn = draw_cells(gap_net, {m: (m, {}) for m in LOCAL}, last[:, :, part, 1:6], 2, last.shape[2] * last.shape[3])
        for name, m in drawn.items():
            scale = float(whole[name].abs().max())
            torch.testing.assert_close(m, whole[name][0, part, 1:6], rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("method", OF_ALL_CELLS)
def test_all_cells_in_one_column_give_the_map_of_the_image(gap_net, images, method):
    target = torch.tensor([1])
    whole = cams([method], gap_net, images[:1], target)[method][0]
    last = gap_net.encode(images[:1]).last.detach()
    column = cams([method], gap_net, None, target, features=Features((last.flatten(2)[..., None],)))[method][0, :, 0]
    torch.testing.assert_close(column, whole.flatten(), rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def test_a_method_the_net_cannot_have_is_an_error_at_once(gap_net):
    with pytest.raises(ValueError, match="needs a net that was trained with head 'masker'"):
        route("masker", gap_net)
    assert route("cam", tiny("gap", classes=1)).kind == "cells"
