"""`timm:NAME` against timm itself, and timm as the oracle of the nets that share its layout. Needs the extra `timm`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from wsol.models import build_localizer, load_checkpoint, save_checkpoint
from wsol.models.backbones.timm_models import import_timm

try:
    timm = import_timm()
except RuntimeError as error:
    pytest.skip(str(error), allow_module_level=True)

CHAINS = ["resnet18", "mobilenetv2_100", "convnext_atto", "regnety_002", "densenet121"]
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def built(name: str, **options):
    options = {"weights": None, "output_stride": 32, **options}
    return build_localizer(f"timm:{name}", "gap", 2, **options, generator=torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize("name", ["mobilenetv2_100", "vit_tiny_patch16_224"])
def test_one_step_against_the_gradient_lowers_the_loss(name):
    net = built(name, freeze_bn=False).train()
    labels = torch.tensor([0, 1])
    loss = functional.cross_entropy(net(IMAGES).logits, labels)
    loss.backward()
    slopes = [value.grad for value in net.parameters()]
    assert all(slope is not None and torch.isfinite(slope).all() for slope in slopes)  # no layer without a use is left
    norm = torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt()
    torch.optim.SGD(net.parameters(), lr=float(1e-2 / norm)).step()
    after = functional.cross_entropy(net(IMAGES).logits, labels)
    assert after < loss


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_ends_in_what_timm_calls_its_features(name):
    net = built(name)
    for key, value in net.backbone.state_dict().items():
        if key.endswith(("weight", "gamma")) and value.ndim == 1:  # some start at 0, and a block that is the identity hides much
            value.copy_(torch.rand(value.shape) + 0.5)
    oracle = timm.create_model(name, pretrained=False).eval()
    oracle.load_state_dict({**oracle.state_dict(), **{k.removeprefix("model."): v for k, v in net.backbone.state_dict().items()}})
    info = list(oracle.feature_info)
    with torch.no_grad():
        f = net.encode(IMAGES)
        torch.testing.assert_close(f.last, oracle.forward_features(net.backbone.normalize(IMAGES)))
    assert net.backbone.strides == tuple(part["reduction"] for part in info)
    assert net.backbone.channels[:-1] == tuple(part["num_chs"] for part in info)[:-1]
    for stage, channels, stride in zip(f.stages, net.backbone.channels, net.backbone.strides, strict=True):
        assert stage.shape == (2, channels, 64 // stride, 96 // stride)
    with torch.no_grad():
        for start in range(1, len(f.stages)):
            rest = net.encode(f.stages[start - 1], start=start).stages
            assert all(torch.equal(a, b) for a, b in zip(rest, f.stages[start:], strict=True))
    leaf = net.encode(IMAGES, leaf=1)
    (slope,) = torch.autograd.grad(net.head(leaf).logits.sum(), leaf.stages[1])
    assert slope.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "beside", "patch"), [("vit_tiny_patch16_224", 1, 16), ("deit_tiny_distilled_patch16_224", 2, 16)]
)
def test_a_transformer_gives_its_last_tokens_as_a_grid_without_those_beside(name, beside, patch):
    net = built(name)
    assert (net.backbone.channels, net.backbone.strides, net.output_stride) == ((192,), (patch,), patch)
    with torch.no_grad():
        grid = net.encode(IMAGES).last
        tokens = net.backbone.model.forward_features(net.backbone.normalize(IMAGES))
        torch.testing.assert_close(grid, tokens[:, beside:].transpose(1, 2).reshape(2, 192, 64 // patch, 96 // patch))
        ragged = net.encode(IMAGES[..., :50, :90]).last
        color = net.backbone.mean.expand(2, 3, 64, 96).clone()  # what is 0 after the normalization
        color[..., :50, :90] = IMAGES[..., :50, :90]
        torch.testing.assert_close(ragged, net.encode(color).last)


def test_registers_and_hierarchical_transformers_become_grids():
    with torch.no_grad():
        registers = built("vit_small_patch14_reg4_dinov2", output_stride=16)  # 14 px are fine enough
        assert registers.encode(IMAGES[..., :56, :84]).last.shape == (2, 384, 4, 6)
        assert registers.output_stride == 14
        swin = built("swin_tiny_patch4_window7_224")
        f = swin.encode(IMAGES)
        theirs = swin.backbone.model.forward_features(swin.backbone.normalize(IMAGES))
    torch.testing.assert_close(f.last, theirs.permute(0, 3, 1, 2))  # timm keeps its channels last
    assert swin.output_stride == 32


def test_images_get_the_units_of_the_model():
    net = built("vit_tiny_patch16_224")
    ends = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    torch.testing.assert_close(net.backbone.normalize(ends)[0, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))
    own = build_localizer("resnet18", "gap", 2, weights=None).backbone
    torch.testing.assert_close(built("resnet18").backbone.normalize(IMAGES), own.normalize(IMAGES))


def test_an_output_stride_is_asked_of_the_model():
    net = built("resnet18", output_stride=8)
    assert net.backbone.strides == (2, 4, 8, 8, 8)
    with torch.no_grad():
        assert net.encode(IMAGES).last.shape == (2, 512, 8, 12)
    with pytest.raises(ValueError, match=r"timm:densenet121 has 32 px per cell and timm cannot make it 16.*output_stride=32"):
        built("densenet121", output_stride=16)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_a_state_dict_of_timm_loads_and_computes_what_timm_computes(tmp_path: Path, name):
    torch.manual_seed(2)
    oracle = timm.create_model(name, pretrained=False).eval()
    for key, value in oracle.state_dict().items():
        if key.endswith("running_mean") or (key.endswith("weight") and value.ndim == 1):  # some start at 0 and would hide a lot
            value.copy_(torch.rand(value.shape))
    torch.save(oracle.state_dict(), tmp_path / "weights.pth")
    for backbone in (name, f"timm:{name}"):  # MONAI's net, whose layout is torchvision's too, and timm's
        net = build_localizer(backbone, "gap", 2, weights=tmp_path / "weights.pth").eval()
        with torch.no_grad():
            theirs = oracle.forward_features(net.backbone.normalize(IMAGES))
            torch.testing.assert_close(net.encode(IMAGES).last, theirs, rtol=1e-4, atol=1e-4)
    state = oracle.state_dict()
    gone = next(key for key in state if key.endswith("conv2.weight"))
    torch.save({key: value for key, value in state.items() if key != gone} | {"stray": torch.zeros(1)}, tmp_path / "torn.pth")
    with pytest.raises(ValueError, match=rf"1 missing: model.{gone}; 1 unexpected: model.stray"):
        build_localizer(f"timm:{name}", "gap", 2, weights=tmp_path / "torn.pth")


@pytest.mark.parametrize("name", ["mobilenetv2_100", "vit_tiny_patch16_224"])
def test_a_checkpoint_rebuilds_its_net(tmp_path: Path, name):
    net = built(name, output_stride=16)
    save_checkpoint(net, tmp_path / "net.safetensors")
    again = load_checkpoint(tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(again(IMAGES).maps, net(IMAGES).maps)
    assert again.recipe["backbone"] == f"timm:{name}"


def test_a_downloaded_folder_of_a_hub_brings_its_options_units_and_weights(tmp_path: Path):
    """As pathology encoders are published: an architecture with options, and weights beside."""
    from safetensors.torch import save_file

    options = {"init_values": 1e-5, "depth": 2, "embed_dim": 48, "num_heads": 3, "patch_size": 8, "img_size": 64}
    oracle = timm.create_model("vit_tiny_patch16_224", num_classes=0, **options).eval()
    units = {"input_size": [3, 64, 64], "mean": [0.7, 0.5, 0.7], "std": [0.2, 0.25, 0.2], "classifier": "head"}
    card = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": options, "pretrained_cfg": units}
    (tmp_path / "config.json").write_text(json.dumps(card))
    save_file(oracle.state_dict(), tmp_path / "model.safetensors")
    net = built(f"local-dir:{tmp_path}", weights="imagenet")
    assert (net.backbone.channels, net.backbone.strides) == ((48,), (8,))
    x = (IMAGES[..., :64] - torch.tensor(units["mean"])[:, None, None]) / torch.tensor(units["std"])[:, None, None]
    with torch.no_grad():
        tokens = oracle.forward_features(x)
        torch.testing.assert_close(net.encode(IMAGES[..., :64]).last, tokens[:, 1:].transpose(1, 2).reshape(2, 48, 8, 8))
    with pytest.raises(RuntimeError, match="could not be opened"):
        built(f"local-dir:{tmp_path / 'nowhere'}")


def test_unknown_names_and_unreachable_weights_say_what_to_do(monkeypatch):
    with pytest.raises(ValueError, match=r"timm has no model 'resnet-50'; did you mean resnet50"):
        built("resnet-50")

    create = timm.create_model

    def no_network(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route")
        return create(name, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(RuntimeError, match=r"no published weights for timm:resnet18: no route\. .*pass weights=<file"):
        built("resnet18", weights="imagenet")


def test_frozen_batch_norm_and_the_generator_reach_timm():
    def statistics(net):
        return torch.cat([value.flatten() for key, value in net.state_dict().items() if "running" in key])

    for freeze in (True, False):
        net = built("mobilenetv2_100", freeze_bn=freeze).train()
        before = statistics(net)
        net(IMAGES)
        assert torch.equal(before, statistics(net)) == freeze
    state = torch.get_rng_state()
    a, b = built("vit_tiny_patch16_224").state_dict(), built("vit_tiny_patch16_224").state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(state, torch.get_rng_state())
