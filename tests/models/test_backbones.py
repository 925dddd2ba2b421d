"""Oracles: the package the EfficientNet weights come from, and what torchvision's ResNet-18 is documented to compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from wsol.models import Localizer, build_localizer
from wsol.models.weights import find_efficientnet_lite, load_weights


@pytest.mark.parametrize("size", [(224, 224), (130, 97), (33, 64)])
def test_lite0_computes_what_the_oracle_computes(imagenet_lite0: Localizer, size):
    oracle_package = pytest.importorskip("efficientnet_lite_pytorch")
    oracle = oracle_package.EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    oracle.load_state_dict(torch.load(find_efficientnet_lite(0), weights_only=True))
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = imagenet_lite0.encode(x).last
        theirs = oracle.extract_features((x * 255 - 127) / 128)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        logits = functional.linear(ours.mean((2, 3)), oracle._fc.weight, oracle._fc.bias)
        torch.testing.assert_close(logits, oracle((x * 255 - 127) / 128), rtol=1e-4, atol=1e-4)
    assert ours.std() > 0.1


def test_lite0_normalizes_to_the_units_of_its_weights(imagenet_lite0: Localizer):
    x = torch.tensor([0.0, 127 / 255, 1.0]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(imagenet_lite0.backbone.normalize(x).flatten(), torch.tensor([-127 / 128, 0.0, 1.0]))


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_output_stride_removes_late_strides_only(stride):
    net = build_localizer("efficientnet_lite0", "gap", 2, output_stride=stride).eval()
    full = build_localizer("efficientnet_lite0", "gap", 2).eval()
    x = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        f, g = net.encode(x), full.encode(x)
    assert f.last.shape[2:] == (96 // stride, 64 // stride)
    assert net.output_stride == stride == net.backbone.strides[-1]
    for a, b, s in zip(f.stages, g.stages, full.backbone.strides, strict=True):
        if s < stride or stride == 32:
            assert torch.equal(a, b)


def test_unknown_stride_is_refused():
    with pytest.raises(ValueError, match="output_stride must be one of 32, 16, 8; got 4"):
        build_localizer("efficientnet_lite0", "gap", 2, weights=None, output_stride=4)


def torchvision_layout(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A random state dict with the names and shapes of torchvision's resnet18, its classifier included."""
    state: dict[str, torch.Tensor] = {}

    def conv(name: str, out: int, inside: int, k: int) -> None:
        state[name + ".weight"] = torch.randn(out, inside, k, k, generator=generator) * (2 / (inside * k * k)) ** 0.5

    def norm(name: str, c: int) -> None:
        state.update({name + ".weight": torch.rand(c, generator=generator) + 0.5, name + ".bias": torch.zeros(c)})
        state.update({name + ".running_mean": torch.randn(c, generator=generator) * 0.1, name + ".running_var": torch.ones(c)})
        state[name + ".num_batches_tracked"] = torch.tensor(7)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inside = 64
    for layer, c in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            at = f"layer{layer}.{block}"
            conv(f"{at}.conv1", c, inside, 3)
            norm(f"{at}.bn1", c)
            conv(f"{at}.conv2", c, c, 3)
            norm(f"{at}.bn2", c)
            if inside != c:
                conv(f"{at}.downsample.0", c, inside, 1)
                norm(f"{at}.downsample.1", c)
            inside = c
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 512), torch.zeros(1000)
    return state


def slow_resnet18(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """ResNet-18 as torchvision computes it, written out; the oracle."""

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        s = {k: state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")}
        return functional.batch_norm(y, s["running_mean"], s["running_var"], s["weight"], s["bias"], eps=1e-5)

    y = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    y = norm("bn1", functional.conv2d(y, state["conv1.weight"], stride=2, padding=3)).relu()
    y = functional.max_pool2d(y, 3, 2, 1)
    for layer in range(1, 5):
        for block in range(2):
            at, stride = f"layer{layer}.{block}", 2 if block == 0 and layer > 1 else 1
            z = norm(f"{at}.bn1", functional.conv2d(y, state[f"{at}.conv1.weight"], stride=stride, padding=1)).relu()
            z = norm(f"{at}.bn2", functional.conv2d(z, state[f"{at}.conv2.weight"], padding=1))
            if f"{at}.downsample.0.weight" in state:
                y = norm(f"{at}.downsample.1", functional.conv2d(y, state[f"{at}.downsample.0.weight"], stride=stride))
            y = (y + z).relu()
    return y


def test_resnet18_computes_what_torchvision_computes(tmp_path: Path):
    state = torchvision_layout(torch.Generator().manual_seed(0))
    torch.save(state, tmp_path / "resnet18.pth")
    x = torch.rand(2, 3, 75, 64, generator=torch.Generator().manual_seed(1))
    net = build_localizer("resnet18", "lse", 2, weights=tmp_path / "resnet18.pth").eval()
    with torch.no_grad():
        f = net.encode(x)
        torch.testing.assert_close(f.last, slow_resnet18(state, x), rtol=1e-4, atol=1e-4)
    for stage, channels, stride in zip(f.stages, net.backbone.channels, net.backbone.strides, strict=True):
        assert stage.shape == (2, channels, -(-75 // stride), 64 // stride)
    fine = build_localizer("resnet18", "lse", 2, weights=tmp_path / "resnet18.pth", output_stride=16).eval()
    with torch.no_grad():
        g = fine.encode(x)
    assert g.last.shape == (2, 512, 5, 4)
    assert torch.equal(f.stages[3], g.stages[3])


def test_resnet18_names_the_keys_that_do_not_fit(tmp_path: Path):
    from safetensors.torch import save_file

    net = build_localizer("resnet18", "gap", 2, weights=None)
    state = torchvision_layout(torch.Generator())
    state["layer9.conv.weight"] = state.pop("layer1.0.conv1.weight")
    state["bn1.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "w.safetensors")
    before = net.backbone.state_dict()["conv1.weight"].clone()
    with pytest.raises(
        ValueError, match=r"1 missing: layer1.0.conv1.weight; 1 unexpected: layer9.conv.weight; 1 wrong shape: bn1.bias"
    ):
        load_weights(net.backbone, tmp_path / "w.safetensors")
    assert torch.equal(before, net.backbone.state_dict()["conv1.weight"])  # nothing was half loaded
    old = {k: v for k, v in torchvision_layout(torch.Generator()).items() if not k.endswith("num_batches_tracked")}
    save_file(old, tmp_path / "old.safetensors")
    load_weights(net.backbone, tmp_path / "old.safetensors")  # files from before the counters existed


def test_resnet18_without_a_hub_says_how_to_get_weights(monkeypatch, tmp_path: Path):
    from urllib.error import URLError

    def no_network(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(
        RuntimeError, match=r"resnet18-f37072fd.pth could not be fetched.*weights=<that file>.*efficientnet_lite0"
    ):
        build_localizer("resnet18", "gap", 2)


def test_files_that_are_no_weights_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        build_localizer("efficientnet_lite0", "gap", 2, weights=tmp_path / "none.pth")
    for name in ("bad.pth", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"not a file of weights")
        with pytest.raises(ValueError, match="damaged or no"):
            build_localizer("efficientnet_lite0", "gap", 2, weights=tmp_path / name)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "nested.pth")
    with pytest.raises(ValueError, match="no flat state dict"):
        build_localizer("efficientnet_lite0", "gap", 2, weights=tmp_path / "nested.pth")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "pickle.pth")  # a pickle must never run
    with pytest.raises(ValueError, match="damaged or no"):
        build_localizer("efficientnet_lite0", "gap", 2, weights=tmp_path / "pickle.pth")
