"""A head with a decoder is its base in all but the pixels; the decoder against a slow one, and the sizes it must fit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wsol.cams import METHODS, cam, cams, finish
from wsol.models import Features, build_localizer, load_checkpoint, save_checkpoint
from wsol.models.heads.decoders import Decoded, Pixel

CHANNELS = (4, 6, 8, 10, 12)


def features(sizes=((24, 32), (12, 16), (6, 8), (3, 4), (2, 2)), dtype=torch.float32, b=2):
    generator = torch.Generator().manual_seed(0)
    return Features(
        tuple(torch.randn(b, c, *size, generator=generator, dtype=dtype) for c, size in zip(CHANNELS, sizes, strict=True))
    )


def build(kind, k=3, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(CHANNELS, k, **options).eval()


def net(head, **options):
    return build_localizer(
        "efficientnet_lite0", head, 2, weights=None, head_options=options, generator=torch.Generator().manual_seed(0)
    ).eval()


def slow_norm(x, norm):
    """Group norm of one image, group by group."""
    out = torch.empty_like(x)
    per = x.shape[0] // norm.num_groups
    for g in range(norm.num_groups):
        part = x[g * per : (g + 1) * per]
        out[g * per : (g + 1) * per] = (part - part.mean()) / (part.var(unbiased=False) + norm.eps).sqrt()
    return out * norm.weight[:, None, None] + norm.bias[:, None, None]


def slow_block(x, block):
    conv, norm, _ = block
    return slow_norm(functional.conv2d(x[None], conv.weight, padding=conv.kernel_size[0] // 2)[0], norm).clamp_min(0)


@pytest.mark.parametrize("finest", [0, 2])
def test_the_decoder_is_a_u(finest):
    f, head = features(dtype=torch.float64), build(Decoded, width=8, finest=finest).double()
    for image in range(2):
        x = slow_block(f.last[image], head.reduce)
        for i in (3, 2, 1, 0)[: 4 - finest]:
            skip = f.stages[i][image]
            x = functional.interpolate(x[None], size=skip.shape[-2:], mode="bilinear")[0]
            for block in head.levels[i - finest]:
                x = slow_block(torch.cat([x, skip]) if block is head.levels[i - finest][0] else x, block)
        expected = torch.einsum("c,chw->hw", head.last.weight[0, :, 0, 0], x) + head.last.bias
        torch.testing.assert_close(head(f).pixels[image, 0], expected)


def test_the_pixel_classifier_is_linear_in_each_cell():
    f, head = features(), build(Pixel)
    expected = torch.einsum("c,bchw->bhw", head.pixel[-1].weight[0, :, 0, 0], f.last) + head.pixel[-1].bias
    torch.testing.assert_close(head(f).pixels[:, 0], expected)
    wide = build(Pixel, hidden=2, hidden_channels=5, batch_norm=True)
    assert [tuple(p.shape) for p in wide.pixel.parameters() if p.ndim == 4] == [(5, 12, 1, 1), (5, 5, 1, 1), (1, 5, 1, 1)]
    scaled = wide.train()(Features((*f.stages[:-1], 3 * f.last + 7)))  # batch norm takes scale and offset out; no dropout here
    assert scaled.pixels.shape == (2, 1, 2, 2)
    wide.pixel[1].p = 0.0
    torch.testing.assert_close(wide(Features((*f.stages[:-1], 3 * f.last + 7))).pixels, wide(f).pixels, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [Decoded, Pixel])
@pytest.mark.parametrize("base", ["gap", "lse"])
def test_logits_maps_and_bags_are_those_of_the_base(kind, base):
    f, head = features(b=4), build(kind, base=base, base_options={"bag_top": 0.5})
    said, own = head(f), head.base(f)
    assert torch.equal(said.logits, own.logits)
    assert torch.equal(said.maps, own.maps)
    assert torch.equal(head.logits(f), own.logits)
    groups = torch.tensor([0, 0, 1, 0])
    bags = head(f, groups=groups)
    assert torch.equal(bags.logits, head.base(f, groups=groups).logits)
    assert torch.equal(bags.pixels, said.pixels)
    assert head.affine == (base == "gap")
    assert head.weight is head.base.weight
    assert head.bias is head.base.bias


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
def test_odd_sizes_and_equal_strides_fit(backbone, stride):
    made = build_localizer(backbone, "decoded", 2, weights=None, output_stride=stride, head_options={"width": 8}).eval()
    f = made.encode(torch.rand(1, 3, 70, 37))
    pixels = made.head(f).pixels
    assert pixels.shape == (1, 1, 35, 19)
    assert pixels.std() > 0
    small = build_localizer(backbone, "pixel", 2, weights=None, output_stride=stride).eval()
    assert small(torch.rand(1, 3, 70, 37)).pixels.shape[-2:] == f.last.shape[-2:]


def test_without_its_skips_a_decoder_is_silent_and_the_base_is_not():
    made = net("decoded")
    f = made.encode(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    resumed = made.head(made.encode(f.stages[2], start=3))
    assert resumed.pixels is None
    torch.testing.assert_close(resumed.logits, made.head(f).logits)
    assert net("pixel").head(Features((f.last,))).pixels is not None


@pytest.mark.parametrize("head", ["decoded", "pixel"])
def test_maps_of_all_methods_are_those_of_the_base_and_native_draws_pixels(head):
    made, plain = net(head), net("gap")
    plain.backbone.load_state_dict(made.backbone.state_dict())
    plain.head.load_state_dict(made.head.base.state_dict())
    images, targets = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1])
    methods = [m for m in ("cam", "grad-cam", "hirescam", "layer-cam", "ablation-cam", "recipro-cam") if m in METHODS]
    ours, theirs = cams(methods, made, images, targets), cams(methods, plain, images, targets)
    for method in methods:
        torch.testing.assert_close(ours[method], theirs[method], msg=method)
    pixels = made(images).pixels[:, 0]
    assert torch.equal(cam("native", made, images, targets), pixels)
    assert torch.equal(cam("native", made, images, targets, source="maps"), theirs["cam"])
    # The scale `probability` of an evaluation is this: the probability that the decoder was trained to give.
    score = finish(pixels, None, relu="native", normalize="sigmoid")
    torch.testing.assert_close(score, pixels.sigmoid().detach())


@pytest.mark.parametrize("head", ["decoded", "pixel"])
def test_a_checkpoint_comes_back(head, tmp_path):
    made = net(head, base="lse", base_options={"r": 3.0})
    save_checkpoint(made, tmp_path / "x.safetensors")
    back = load_checkpoint(tmp_path / "x.safetensors").eval()
    x = torch.rand(1, 3, 64, 64)
    assert back.head.base.r == 3.0
    assert torch.equal(back(x).pixels, made(x).pixels)
    assert torch.equal(back(x).logits, made(x).logits)


@pytest.mark.parametrize("kind", [Decoded, Pixel])
def test_half_precision_features_and_autocast_give_float32(kind):
    f, head = features(), build(kind)
    half = Features(tuple(stage.bfloat16() for stage in f.stages))
    exact = head(f).pixels
    assert head(half).pixels.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        rough = head(f).pixels
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("kind", "options", "error", "told"),
    [
        (Decoded, {"width": 12}, ValueError, "multiple of 8.*got 12"),
        (Decoded, {"finest": 4}, ValueError, r"0\.\.3; got 4"),
        (Decoded, {"base": "gpa"}, ValueError, "unknown head 'gpa'; did you mean 'gap'"),
        (Decoded, {"base": "pixel"}, ValueError, "'pixel' has a decoder of its own"),
        (Decoded, {"base_options": {"r": 1}}, TypeError, "option 'r' of head 'gap'"),
        (Pixel, {"hidden": -1}, ValueError, "must not be negative"),
        (Pixel, {"pixel_dropout": 1.0}, ValueError, "pixel_dropout"),
    ],
)
def test_wrong_options_are_refused(kind, options, error, told):
    with pytest.raises(error, match=told):
        build(kind, **options)
