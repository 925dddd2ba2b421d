"""Methods made of other methods: what undoes itself, what averages to the base, and loops over what they average."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wsol.cams import METHODS, cam, cams, drawer

BASES = ["grad-cam", "layer-cam", "cam", "eigen-cam", "gradient", "score-cam"]


def inner(seed):
    """The generator that a method draws from, for a call with this seed."""
    outer = torch.Generator().manual_seed(seed)
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=outer)))


def close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def unit(m):
    return torch.stack([one / one.abs().max() for one in m]).nan_to_num()  # no evidence stays 0


def pointwise(net):
    """The net with 1 x 1 filters and average pooling for strides: it does not know left from right."""
    for conv in net.backbone.convs:
        conv.weight.data = conv.weight.data[:, :, 1:2, 1:2].clone() * 3
        conv.padding, conv.stride = (0, 0), (1, 1)
    stage = net.backbone.stage
    net.backbone.stage = lambda i, x: stage(i, functional.avg_pool2d(x, 2))
    return net


@pytest.mark.parametrize("base", BASES)
def test_without_noise_moves_and_scales_it_is_the_base(net, images, targets, base):
    expected = cam(base, net, images, targets)
    assert torch.equal(cam("smooth", net, images, targets, base=base, level=0.0, n=3), expected)
    assert torch.equal(cam("tta", net, images, targets, base=base, moves="none"), expected)


def test_smooth_is_the_mean_over_noisy_images(net, images, targets):
    found = cam("smooth", net, images, targets, base="layer-cam", n=3, level=0.2, generator=torch.Generator().manual_seed(7))
    generator = inner(7)
    noise = [torch.randn(3, 40, 56, generator=generator) for _ in range(3)]
    for i in range(4):
        spread = 0.2 * (images[i].max() - images[i].min())
        runs = [cam("layer-cam", net, (images[i] + spread * e)[None], targets[i : i + 1])[0] for e in noise]
        close(found[i], torch.stack(runs).mean(0))


def test_smooth_maps_are_raw_not_scaled_one_by_one(gap_net, images, targets):
    """At a GAP head Grad-CAM is linear in the features, so the mean map is the map of the mean features."""
    found = cam("smooth", gap_net, images, targets, n=4, generator=torch.Generator().manual_seed(1))
    generator = inner(1)
    spread = 0.15 * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    features = [gap_net.encode(images + spread * torch.randn(3, 40, 56, generator=generator)).last.detach() for _ in range(4)]
    weights = gap_net.head.weight.detach()[targets] / 35
    close(found, torch.einsum("bc,bchw->bhw", weights, torch.stack(features).mean(0)))


@pytest.mark.parametrize("base", ["grad-cam", "cam", "gradient"])
@pytest.mark.parametrize("moves", ["flip", "flips", "turns", "dihedral"])
def test_moves_are_undone(net, images, targets, base, moves):
    """A net that does not know left from right gives the base's own map back."""
    pointwise(net)
    close(cam("tta", net, images, targets, base=base, moves=moves), cam(base, net, images, targets))


def test_the_mean_over_all_moves_moves_with_the_image(net, images, targets):
    """Any net; the group closes, so a moved image has the moved map. A wrong inverse or a missing move breaks this."""
    square = images[:, :, :, :40]
    m = cam("tta", net, square, targets)
    assert not torch.allclose(m, cam("grad-cam", net, square, targets), rtol=0.05)
    close(cam("tta", net, square.flip(-1), targets), m.flip(-1))
    close(cam("tta", net, square.flip(-2), targets), m.flip(-2))
    close(cam("tta", net, torch.rot90(square, 1, (2, 3)), targets), torch.rot90(m, 1, (1, 2)))
    oblong = cam("tta", net, images, targets, moves="turns")
    close(cam("tta", net, torch.rot90(images, 1, (2, 3)), targets, moves="turns"), torch.rot90(oblong, 1, (1, 2)))
    flips = cam("tta", net, images, targets, moves="flips")
    close(cam("tta", net, images.flip(-2), targets, moves="flips"), flips.flip(-2))
    one = cam("tta", net, images, targets, moves="flip")
    close(one, (cam("grad-cam", net, images, targets) + cam("grad-cam", net, images.flip(-1), targets).flip(-1)) / 2)


def test_scales_are_put_into_one_unit_and_one_size(net, images, targets):
    found = cam("tta", net, images, targets, moves="none", scales=[1.0, 2.0])
    large = functional.interpolate(images, (80, 112), mode="bilinear", align_corners=False)
    here, there = cam("grad-cam", net, images, targets), cam("grad-cam", net, large, targets)
    resized = functional.interpolate(unit(here)[:, None], (10, 14), mode="bilinear", align_corners=False)[:, 0]
    close(found, (resized + unit(there)) / 2)
    close(cam("tta", net, images, targets, moves="none", scales=[2.0]), there)


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("base", ["grad-cam", "hirescam"])
def test_fused_is_the_scaled_layers_in_a_loop(net, images, targets, how, base):
    found = cam("fused", net, images, targets, base=base, layers=[0, -1], how=how)
    parts = []
    for layer in (0, -1):
        m = cam(base, net, images, targets, layers=[layer])
        m = unit(m.clamp(min=0) if base == "grad-cam" else m)  # HiResCAM is not rectified
        parts.append(functional.interpolate(m[:, None], (20, 28), mode="bilinear", align_corners=False)[:, 0])
    close(found, sum(parts) / 2 if how == "mean" else torch.maximum(*parts))


def test_fused_takes_the_last_layer_without_a_choice(net, images, targets):
    close(cam("fused", net, images, targets), unit(cam("grad-cam", net, images, targets).clamp(min=0)))


def test_fused_needs_one_encode_and_one_backward(net, images, targets, monkeypatch):
    calls = {"encode": 0, "grad": 0}
    encode, grad = net.encode, torch.autograd.grad
    monkeypatch.setattr(net, "encode", lambda *a, **k: calls.__setitem__("encode", calls["encode"] + 1) or encode(*a, **k))
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.__setitem__("grad", calls["grad"] + 1) or grad(*a, **k))
    cam("fused", net, images, targets, layers=[0, 1, 2])
    assert calls == {"encode": 1, "grad": 1}


def test_no_evidence_is_zero_however_it_is_fused(net, images, targets):
    with torch.no_grad():
        net.head.weight.zero_()
    for how in ("mean", "max"):
        assert (cam("fused", net, images, targets, how=how) == 0).all()
    assert (cam("tta", net, images, targets, scales=[1.0, 1.5]) == 0).all()


def test_wrappers_take_each_other(net, images, targets):
    inside = {"base": "fused", "base_options": {"base": "layer-cam", "base_options": {"gamma": 3.0}, "layers": [-2, -1]}}
    found = cam("tta", net, images, targets, moves="flip", **inside)
    fused = [cam("fused", net, x, targets, base="layer-cam", layers=[-2, -1]) for x in (images, images.flip(-1))]
    close(found, (fused[0] + fused[1].flip(-1)) / 2)
    noisy = {"base": "smooth", "base_options": {"n": 2}}
    a, b = (cam("smooth", net, images, targets, n=2, generator=torch.Generator().manual_seed(3), **noisy) for _ in range(2))
    assert torch.equal(a, b)
    close(a[2:3], cam("smooth", net, images[2:3], targets[2:3], n=2, generator=torch.Generator().manual_seed(3), **noisy))


def test_what_matters_of_the_base_is_inherited():
    for base, rectified, specific, resolution in (
        ("grad-cam", True, True, "feature"),
        ("hirescam", False, True, "feature"),
        ("eigen-cam", False, False, "feature"),
        ("gradient", False, True, "image"),
    ):
        for wrapper in ("smooth", "tta"):
            one = drawer(wrapper, {"base": base})
            assert (one.rectified, one.class_specific, one.resolution) == (rectified, specific, resolution)
    fused = drawer("fused", {"base": "score-cam", "layers": [0]})
    assert (fused.rectified, fused.needs_gradient, fused.needs_images, fused.layers) == (True, False, True, (0,))
    assert drawer("fused", {}).needs_images is False


def test_features_in_hand_do_for_fused_and_not_for_the_others(net, images, targets):
    f = net.encode(images)
    assert torch.equal(cam("fused", net, None, targets, features=f), cam("fused", net, images, targets))
    with pytest.raises(ValueError, match="'fused' changes the images"):
        cam("fused", net, None, targets, features=f, base="score-cam")
    with pytest.raises(ValueError, match="'smooth' changes the images"):
        cam("smooth", net, None, targets, features=f)


def test_every_method_may_be_a_base(net, images, targets):
    dear = ("rise", "occlusion", "ss-cam", "is-cam", "sess", "shap-cam", "ablation-cam")
    for base in METHODS:
        if base not in (*dear, "masker"):
            m = cam("smooth", net, images[:1], targets[:1], base=base, n=1)
            assert torch.isfinite(m).all()


def test_options_that_do_not_fit_are_refused(net, images):
    for method, options, error, message in (
        ("smooth", {"base": "gradcam"}, ValueError, "unknown CAM method 'gradcam'; did you mean 'grad-cam'"),
        (
            "smooth",
            {"base_options": {"layer": [0]}},
            TypeError,
            "option 'layer' of CAM method 'grad-cam'; did you mean 'layers'",
        ),
        ("smooth", {"n": 0}, ValueError, "n must be at least 1"),
        ("tta", {"moves": "flop"}, ValueError, "did you mean 'flip'"),
        ("tta", {"scales": []}, ValueError, r"at least one; got \[\]"),
        ("tta", {"scales": [1.0, 0.0]}, ValueError, "scales must be positive"),
        ("fused", {"layers": []}, ValueError, "at least one stage"),
        ("fused", {"layers": [0, 0]}, ValueError, "none twice"),
        ("fused", {"how": "men"}, ValueError, "did you mean 'mean'"),
        ("fused", {"base": "cam"}, ValueError, "'cam' reads no layer of one's choice"),
        ("fused", {"base_options": {"layers": [0]}}, ValueError, "'fused' itself takes layers="),
        ("fused", {"layers": [0, 3]}, ValueError, "no stage 3"),
    ):
        with pytest.raises(error, match=message):
            cam(method, net, images, **options)


def test_methods_of_one_call_do_not_share_their_draws(net, images, targets):
    alone = cam("smooth", net, images, targets, n=2, generator=torch.Generator().manual_seed(5))
    d = cams(
        {"first": "smooth", "second": "smooth"}, net, images, targets,
        options={"first": {"n": 5}, "second": {"n": 2}}, generator=torch.Generator().manual_seed(5),
    )  # fmt: skip
    assert torch.equal(d["second"], alone)
