"""The transformer against torch's own layers, and the laws of encode on a net with a class token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from wsol.cams import cam, cams
from wsol.models import Localizer, build_localizer, load_checkpoint, save_checkpoint
from wsol.models.backbones.transformer import NATIVE, VisionTransformer, VitTiny
from wsol.models.heads.linear import Gap
from wsol.models.heads.ts_cam import TsCam
from wsol.models.weights import load_weights

MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class Small(VisionTransformer):
    width, heads, depth = 12, 3, 2

    @staticmethod
    def find_imagenet() -> Path:
        raise RuntimeError("no weights")


def small(head=TsCam, seed=0) -> Localizer:
    """Two blocks, weights large enough that every part counts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Localizer(Small(), head(12, 3))
        for p in net.parameters():
            nn.init.normal_(p, std=0.3)
    return net.eval()


def image_batch(height=64, width=48, seed=0):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def reference(backbone, images, heads):
    """Patches cut one by one, torch's own encoder layers with the same weights: (grid, attention)."""
    state = backbone.state_dict()
    width = state["cls_token"].shape[2]
    x = (images - MEAN) / STD
    height, across = images.shape[2] // 16, images.shape[3] // 16
    kernel = state["patch_embed.proj.weight"].flatten(1)
    patches = [
        x[:, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16].flatten(1) @ kernel.T + state["patch_embed.proj.bias"]
        for i in range(height)
        for j in range(across)
    ]
    tokens = torch.stack([state["cls_token"][0].expand(len(x), -1), *patches], 1) + backbone.positions((height, across))
    seen = []
    for number in range(len(backbone.blocks)):
        own = {k.removeprefix(f"blocks.{number}."): v for k, v in state.items() if k.startswith(f"blocks.{number}.")}
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        ).eval()
        names = {"attn.qkv.weight": "self_attn.in_proj_weight", "attn.qkv.bias": "self_attn.in_proj_bias"}
        parts = {
            "attn.proj": "self_attn.out_proj",
            "mlp.fc1": "linear1",
            "mlp.fc2": "linear2",
            "norm1": "norm1",
            "norm2": "norm2",
        }
        names |= {f"{a}.{end}": f"{b}.{end}" for a, b in parts.items() for end in ("weight", "bias")}
        layer.load_state_dict({names[k]: v for k, v in own.items()})
        normed = layer.norm1(tokens)
        seen.append(layer.self_attn(normed, normed, normed, average_attn_weights=True)[1][:, 0, 1:])
        tokens = layer(tokens)
    out = nn.functional.layer_norm(tokens, (width,), state["norm.weight"], state["norm.bias"], eps=1e-6)[:, 1:]
    shape = (height, across)
    return out.transpose(1, 2).unflatten(2, shape), torch.stack(seen, 1).unflatten(2, shape)


@pytest.mark.parametrize(("make", "heads"), [(lambda: small().backbone, 3), (VitTiny, 3)])
def test_it_computes_what_torchs_encoder_layers_compute(make, heads):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = make()
    images = image_batch()
    with torch.no_grad():
        f = Localizer(backbone, Gap(backbone.channels[-1], 2)).encode(images)
    grid, attention = reference(backbone, images, heads)
    torch.testing.assert_close(f.last, grid, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(f.extra["attention"], attention, rtol=1e-4, atol=1e-6)
    assert f.last.std() > 0.1
    assert attention.std() > 0


def test_attention_without_queries_is_uniform():
    net = small()
    for block in net.backbone.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
    attention = net.encode(image_batch()).extra["attention"]
    torch.testing.assert_close(attention, torch.full((2, 2, 4, 3), 1 / 13))


def timm_layout(width, depth, generator):
    """Random weights with the names and shapes of timm's `vit_*_patch16_224` and of DeiT, the classifier included."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 197, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,)}
    linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (4 * width, width)}
    linear["mlp.fc2"] = (width, 4 * width)
    for i in range(depth):
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (width,), f"blocks.{i}.{name}.bias": (width,)}
        for name, shape in linear.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,), "head.weight": (1000, width), "head.bias": (1000,)}
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def test_files_of_timm_and_deit_load_strictly(tmp_path: Path):
    state = timm_layout(192, 12, torch.Generator().manual_seed(0))
    torch.save(state, tmp_path / "timm.pth")
    torch.save({"model": state}, tmp_path / "deit.pth")
    for name in ("timm.pth", "deit.pth"):
        net = build_localizer("vit_tiny", "gap", 2, weights=tmp_path / name, output_stride=16)
        loaded = net.backbone.state_dict()
        assert set(loaded) == set(state) - {"head.weight", "head.bias"}
        assert all(torch.equal(loaded[k], state[k]) for k in loaded)
    state["blocks.3.attn.q.weight"] = state.pop("blocks.3.attn.qkv.weight")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"1 missing: blocks.3.attn.qkv.weight; 1 unexpected: blocks.3.attn.q.weight"):
        load_weights(net.backbone, tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["vit_tiny", "vit_small"])
def test_without_a_network_it_says_how_to_get_weights(monkeypatch, tmp_path: Path, name):
    from urllib.error import URLError

    def no_network(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(RuntimeError, match=rf"for {name}: .*deit_.*could not be fetched.*weights=<that file>"):
        build_localizer(name, "gap", 2, output_stride=16)


def test_other_strides_are_refused():
    for stride in (32, 8):
        with pytest.raises(ValueError, match=f"output_stride=16; got {stride}"):
            build_localizer("vit_tiny", "gap", 2, weights=None, output_stride=stride)


def cubic(values, size):
    """Cubic convolution of a row (Keys, a = -0.75), edges repeated: cell j of `size` lies at (j + 1/2) n / size - 1/2."""

    def weight(t):
        t = abs(t)
        if t <= 1:
            return 1.25 * t**3 - 2.25 * t**2 + 1
        return -0.75 * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    n = len(values)
    places = [(j + 0.5) * n / size - 0.5 for j in range(size)]
    return [sum(weight(x - i) * values[min(max(i, 0), n - 1)] for i in range(-3, n + 3)) for x in places]


def test_positions_are_as_stored_at_the_native_size_and_resized_elsewhere():
    backbone = small().backbone
    assert torch.equal(backbone.positions((NATIVE, NATIVE)), backbone.pos_embed)
    draw = torch.Generator().manual_seed(0)
    down, across = (torch.rand(14, generator=draw) for _ in range(2))
    with torch.no_grad():
        backbone.pos_embed[0, 1:, 5] = torch.outer(down, across).flatten()
    resized = backbone.positions((20, 5))
    assert torch.equal(resized[:, 0], backbone.pos_embed[:, 0])
    expected = torch.outer(torch.tensor(cubic(down.tolist(), 20)), torch.tensor(cubic(across.tolist(), 5)))
    torch.testing.assert_close(resized[0, 1:, 5].reshape(20, 5), expected, rtol=1e-4, atol=1e-5)


def test_images_are_padded_to_whole_patches_by_the_mean_color():
    net, images = small(), image_batch(70, 97)
    padded = MEAN.expand(2, 3, 80, 112).clone()
    padded[:, :, :70, :97] = images
    with torch.no_grad():
        ours, whole = net(images), net(padded)
    assert ours.maps.shape == (2, 3, 5, 7)
    torch.testing.assert_close(ours.maps, whole.maps)


def test_forward_is_head_of_encode_and_resuming_gives_the_same():
    net, images = small(), image_batch()
    with torch.no_grad():
        f = net.encode(images)
        whole, parts = net(images), net.head(f)
        rest = net.encode(f.stages[0], start=1)
    assert torch.equal(whole.logits, parts.logits)
    assert torch.equal(whole.maps, parts.maps)
    assert torch.equal(rest.last, f.last)
    assert torch.equal(rest.extra["attention"], f.extra["attention"])
    assert [s.shape for s in f.stages] == [(2, 12, 4, 3)] * 2
    with torch.no_grad():
        torch.testing.assert_close(net(images[:1]).logits, whole.logits[:1])


@pytest.mark.parametrize("leaf", [0, 1])
def test_leaf_has_a_graph_above_and_none_below(leaf):
    net, images = small(), image_batch()
    f = net.encode(images, leaf=leaf)
    assert [s.requires_grad for s in f.stages] == [leaf == 0, True]
    assert f.stages[leaf].is_leaf
    (slope,) = torch.autograd.grad(net.head(f).logits.sum(), f.stages[leaf])
    assert slope.abs().sum() > 0
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(f.stages, net.encode(images).stages, strict=True))


def test_training_in_half_precision_reaches_every_parameter():
    net = build_localizer("vit_tiny", "ts-cam", 2, weights=None, output_stride=16).to(memory_format=torch.channels_last)
    images = image_batch()
    with torch.autocast("cpu", torch.bfloat16):
        p = net(images.contiguous(memory_format=torch.channels_last))
    assert p.logits.dtype == p.maps.dtype == torch.float32
    p.logits[:, 0].sum().backward()
    assert all(q.grad is not None and q.grad.isfinite().all() for q in net.parameters())
    with torch.no_grad():
        exact = net.eval()(images).maps
    assert nn.functional.cosine_similarity(exact.flatten(), p.maps.detach().flatten(), dim=0) > 0.99


def test_a_checkpoint_gives_the_same_net(tmp_path: Path):
    net = build_localizer("vit_tiny", "ts-cam", 2, weights=None, output_stride=16, head_options={"blocks": "sum"}).eval()
    save_checkpoint(net, tmp_path / "x.safetensors")
    with torch.no_grad():
        assert torch.equal(load_checkpoint(tmp_path / "x.safetensors")(image_batch()).maps, net(image_batch()).maps)


FEWER = {
    "smooth-grad-cam++": {"n": 3},
    "shap-cam": {"orders": 4, "players": 12},
    "ss-cam": {"n": 2},
    "is-cam": {"n": 2},
    "smooth-grad": {"n": 3},
    "integrated-gradients": {"steps": 3},
    "rise": {"n": 20},
    "smooth": {"n": 2},
    "sess": {"scales": (1.0, 1.6)},
}
"""Options that make a method quick where it would run the net many times."""


@pytest.mark.parametrize("head", [TsCam, Gap])
def test_map_methods_work_on_a_transformer(head):
    net, images, targets = small(head), image_batch(), torch.tensor([2, 0])
    names = ["cam", "native", "grad-cam", "grad-cam++", "xgrad-cam", "hirescam", "layer-cam", "eigen-cam", "eigen-grad-cam"]
    names += ["ablation-cam", "recipro-cam", "fd-cam", "score-cam", "abs-cam", "gradient", "occlusion", "tta", "fused", *FEWER]
    drawn = cams(names, net, images, targets, options=FEWER)
    for name, m in drawn.items():
        assert m.isfinite().all(), name
        assert m.std() > 0, name
    with pytest.raises(ValueError, match="met no ReLU"):  # a transformer has GELU
        cam("guided-grad-cam", net, images, targets)


def test_maps_of_the_first_stage_are_those_of_a_resumed_net():
    """Grad-CAM and Recipro-CAM below the transformer, worked out by hand; the class token joins above."""
    net, images, targets = small(), image_batch(), torch.tensor([2, 0])
    f = net.encode(images, leaf=0)
    (slope,) = torch.autograd.grad(net.head(f).logits[[0, 1], targets].sum(), f.stages[0])
    expected = (slope.mean((2, 3), keepdim=True) * f.stages[0].detach()).sum(1)
    found = cam("grad-cam", net, images, targets, layers=[0])
    torch.testing.assert_close(found, expected)
    given = cam("grad-cam", net, None, targets, features=net.encode(images), layers=[0])
    torch.testing.assert_close(given, expected)
    left = cam("recipro-cam", net, images, targets, layers=[0], score="logit")
    for i, j in ((0, 0), (3, 2), (1, 1)):
        alone = torch.zeros_like(f.stages[0])
        alone[:, :, i, j] = f.stages[0][:, :, i, j]
        with torch.no_grad():
            logits = net.head(net.encode(alone, start=1)).logits
        torch.testing.assert_close(left[:, i, j], logits[[0, 1], targets])
