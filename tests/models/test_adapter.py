"""A foreign module as a localizer: its parts say what the whole says, and it stays as it was."""

from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.models import Localizer, from_module, save_checkpoint


class Block(nn.Module):
    """Residual, with an activation in place on the sum."""

    def __init__(self, inside, outside, act):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.act1 = act()
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, 2)
        self.act2 = act()

    def forward(self, x):
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return self.act2(y.add_(self.shortcut(x)))


class Little(nn.Module):
    """A residual net; its tail flattens by the batch size of the image, as many do."""

    def __init__(self, act=lambda: nn.ReLU(inplace=True), classes=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = Block(8, 12, act)
        self.layer2 = Block(12, 16, act)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        y = functional.relu(self.stem(x), inplace=True)  # in place on the output of a layer
        y = self.layer2(self.layer1(y))
        return self.fc(self.pool(y).view(x.size(0), -1))


class UNet(nn.Module):
    """Classifies the mean of what its decoder draws."""

    def __init__(self):
        super().__init__()
        self.inc = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.up = nn.ConvTranspose2d(12, 8, 2, 2)
        self.out = nn.Sequential(nn.Conv2d(16, 8, 3, 1, 1), nn.ReLU())
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        fine = self.inc(x)
        y = self.up(self.down(fine))
        y = self.out(torch.cat([y, fine], 1))
        return {"logits": self.fc(y.mean((2, 3))), "drawn": y}


class Vit(nn.Module):
    """A transformer with a class token, or with the mean of the tokens in its place; 4 x 6 patches of 8 pixels."""

    def __init__(self, pool="token"):
        super().__init__()
        self.pool = pool
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 25 if pool == "token" else 24, 16))
        self.blocks = nn.ModuleList(Attention(16) for _ in range(3))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        t = self.patches(x).flatten(2).transpose(1, 2)
        if self.pool == "token":
            t = torch.cat([self.token.expand(len(t), -1, -1), t], 1)
        t = t + self.positions
        for block in self.blocks:
            t = block(t)[0]
        t = self.norm(t)
        return self.head(t[:, 0] if self.pool == "token" else t.mean(1)), [t]


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 32), nn.GELU(), nn.Linear(32, channels))

    def forward(self, t):
        q, k, v = self.qkv(self.norm1(t)).chunk(3, -1)
        weights = torch.softmax(q @ k.transpose(1, 2) / 4, -1)
        t = t + weights @ v
        return t + self.mlp(self.norm2(t)), weights


class Swin(nn.Module):
    """Features as (b, h, w, c)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1))).mean((1, 2)))


def made(kind, *args, **options):
    """A net with weights and statistics of its own, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = kind(*args, **options)
        net.train()
        with torch.no_grad():
            for _ in range(3):
                net(torch.rand(8, 3, 32, 48))
    return net.eval()


def wrapped(module, layer, **options):
    return from_module(module, layer, **{"size": (32, 48), **options})


@pytest.fixture
def images():
    return torch.rand(4, 3, 32, 48, generator=torch.Generator().manual_seed(3))


KINDS = {
    "relu in place": (lambda: made(Little), ["stem", "layer1", "layer2"], {}),
    "silu": (lambda: made(Little, nn.SiLU), ["layer1", "layer2.act2"], {}),
    "u-net": (lambda: made(UNet), ["inc", "out"], {}),
    "class token": (lambda: made(Vit), ["patches", "blocks.1"], {"reshape": (4, 6)}),
    "mean token": (lambda: made(Vit, "mean"), ["patches", "blocks.1", "blocks.2", "norm"], {"reshape": (4, 6)}),
    "channels last": (lambda: made(Swin), ["norm", "mlp"], {"reshape": lambda t: t.permute(0, 3, 1, 2)}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(kind):
    module, layers, options = KINDS[kind]
    module = module()
    return module, layers, wrapped(module, layers, **options)


def logits_of(output):
    output = output["logits"] if isinstance(output, dict) else output
    return output[0] if isinstance(output, tuple) else output


def captured(module, layers, images):
    """What the layers put out, kept on the graph, and the logits: one plain pass."""
    kept = {}

    def keep(name):
        def hook(_m, _i, output):
            whole = output[0] if isinstance(output, tuple) else output
            kept[name] = whole
            copy = whole.clone()
            return (copy, *output[1:]) if isinstance(output, tuple) else copy

        return hook

    handles = [module.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    logits = logits_of(module(images))
    for handle in handles:
        handle.remove()
    return [kept[name] for name in layers], logits


def as_grid(t, kind):
    if kind == "channels last":
        return t.permute(0, 3, 1, 2)
    return t if t.ndim == 4 else t[:, -24:].transpose(1, 2).reshape(len(t), 16, 4, 6)


@every_kind
def test_the_parts_say_what_the_whole_says(kind, images):
    module, layers, net = build(kind)
    assert isinstance(net, Localizer)
    outputs, logits = captured(module, layers, images)
    f = net.encode(images)
    assert len(f.stages) == len(layers)
    for stage, output, channels in zip(f.stages, outputs, net.backbone.channels, strict=True):
        torch.testing.assert_close(stage, as_grid(output, kind))  # not what an activation in place made of it
        assert stage.shape[1] == channels
    torch.testing.assert_close(net.head(f).logits, logits)
    torch.testing.assert_close(net(images).logits, logits)
    larger = torch.cat([images, images.flip(3)])
    torch.testing.assert_close(net(larger).logits, logits_of(module(larger)))


@every_kind
def test_slopes_are_those_of_the_whole(kind, images):
    module, layers, net = build(kind)
    outputs, logits = captured(module, layers, images)
    slow = torch.autograd.grad(logits[:, 1].sum(), outputs)
    for number in range(len(layers)):
        f = net.encode(images, leaf=number)
        assert [s.requires_grad for s in f.stages] == [i >= number for i in range(len(layers))]
        assert f.stages[number].is_leaf
        slopes = torch.autograd.grad(net.head(f).logits[:, 1].sum(), f.stages[number:])
        for slope, expected in zip(slopes, slow[number:], strict=True):
            torch.testing.assert_close(slope, as_grid(expected, kind), rtol=1e-4, atol=1e-6)
    images.requires_grad_(True)
    (slope,) = torch.autograd.grad(net(images).logits[:, 1].sum(), images)
    (expected,) = torch.autograd.grad(logits_of(module(images))[:, 1].sum(), images)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)


@every_kind
def test_a_pass_resumes_above_any_stage(kind, images):
    _, layers, net = build(kind)
    with torch.no_grad():
        f = net.encode(images)
        expected = net.head(f).logits
        for number in range(len(layers) - 1):
            if kind == "class token" and number > 0:
                continue
            above = net.encode(f.stages[number], start=number + 1)
            torch.testing.assert_close(net.head(above).logits, expected)
            torch.testing.assert_close(net.backbone.stage(number + 1, f.stages[number]), f.stages[number + 1])
        torch.testing.assert_close(net.backbone.stage(0, net.backbone.normalize(images)), f.stages[0])


def state_of(module):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in module.modules()]
    return [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()], hooks


@every_kind
@pytest.mark.parametrize("frozen", [False, True])
def test_the_module_stays_as_it_was(kind, frozen, images):
    module, layers, options = KINDS[kind]
    module = module().train()
    next(iter(module.children())).eval()
    for p in module.parameters():
        p.requires_grad_(not frozen)
        p.grad = torch.full_like(p, 7.0)
    handle = module.register_forward_hook(lambda *_: None)
    before, weights = state_of(module), copy.deepcopy(module.state_dict())
    net = wrapped(module, layers, **options)
    assert not net.training
    f = net.encode(images, leaf=0)
    torch.autograd.grad(net.head(f).logits.sum(), f.stages[0])
    net.eval().train().eval()
    assert state_of(module) == before
    assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())  # batch norm did not learn
    assert all((p.grad == 7).all() for p in module.parameters())
    handle.remove()
    torch.testing.assert_close(net(images).logits, logits_of(module.eval()(images)))  # it ran in evaluation mode all the same


def test_an_exception_leaves_nothing_behind(images):
    class Fragile(Little):
        def forward(self, x):
            if len(x) == 5:
                self.layer1(functional.relu(self.stem(x)))
                raise OSError("five are too many")
            return super().forward(x)

    module = made(Fragile).train()
    before = state_of(module)
    net = wrapped(module, "layer2")
    assert state_of(module) == before
    with pytest.raises(OSError, match="five are too many"):
        net(torch.cat([images, images[:1]]))
    assert state_of(module) == before
    with pytest.raises(ValueError, match="cannot be cut"):
        wrapped(module, "layer2.conv2")
    assert state_of(module) == before


def test_what_is_passed_by_is_refused_and_the_names_given_work(images):
    module = made(UNet)
    with pytest.raises(ValueError, match=r"cannot be cut at layer 'down': .* because something above also reads") as caught:
        wrapped(module, "down")
    names = re.search(r"can be cut at: (.*)", str(caught.value))[1].split(", ")
    assert "out" in names
    assert "inc" in names
    assert not {"down", "up"} & set(names)
    for name in names:
        net = wrapped(module, name)
        torch.testing.assert_close(net(images).logits, module(images)["logits"])
    with pytest.raises(ValueError, match="cannot be cut at layer 'down'"):
        wrapped(module, ["inc", "down", "out"])
    with pytest.raises(ValueError, match=r"cannot be cut at layer 'layer2\.bn2': .*can be cut at: layer2, layer1, stem"):
        wrapped(made(Little), "layer2.bn2")


def test_layers_that_are_no_place_to_cut_are_refused():
    module = made(Little)
    with pytest.raises(ValueError, match=r"Little has no layer 'layer3'; the nearest: layer2, layer1"):
        wrapped(module, "layer3")
    with pytest.raises(ValueError, match=r"in the order of the pass: \['layer1', 'layer2'\]; got \['layer2', 'layer1'\]"):
        wrapped(module, ["layer2", "layer1"])
    with pytest.raises(ValueError, match="none twice"):
        wrapped(module, ["layer1", "layer1"])
    with pytest.raises(ValueError, match="at least one"):
        wrapped(module, [])
    with pytest.raises(ValueError, match=r"layer 'fc' puts out \(b, 3\), no grid"):
        wrapped(module, "fc")
    with pytest.raises(ValueError, match="'pool' puts out a single cell for images of 32 x 48 px"):
        wrapped(module, "pool")
    module.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="'unused' runs 0 times in a pass of Little"):
        wrapped(module, "unused")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and nets that were traced are still about
        traced = torch.jit.trace(made(Little), torch.rand(2, 3, 32, 48))
    with pytest.raises(ValueError, match=r"'layer2' runs 0 times .* traced or compiled"):
        wrapped(traced, "layer2")
    act = nn.ReLU()
    shared = made(Little, lambda: act)
    with pytest.raises(ValueError, match=r"'layer1\.act1' runs 4 times"):
        wrapped(shared, "layer1.act1")
    with pytest.raises(TypeError, match=r"wraps an nn\.Module; got function"):
        from_module(lambda x: x, "layer2")


def test_modules_without_a_map_of_one_image_are_refused():
    class Mixing(Little):
        def forward(self, x):
            y = self.layer2(self.layer1(self.stem(x)))
            return self.fc((y - y.mean(0, keepdim=True) / 2).abs().mean((2, 3)))

    class Drawing(Little):
        def forward(self, x):
            return super().forward(functional.dropout(x, 0.5))

    class Blind(Little):
        def forward(self, x):
            return super().forward(x) * 0 + 1

    class Detached(Little):
        def forward(self, x):
            return self.fc(self.layer2(self.layer1(self.stem(x))).detach().mean((2, 3)))

    for kind in (Mixing, Drawing):
        with pytest.raises(ValueError, match="of an image alone than in a batch"):
            wrapped(made(kind), "layer2")
    with pytest.raises(ValueError, match=r"says \[1\.0, 1\.0, 1\.0\] and .* too much alike"):
        wrapped(made(Blind), "layer2")
    with pytest.raises(ValueError, match=r"'layer2': no gradient comes back"):
        wrapped(made(Detached), "layer2")
    with pytest.raises(ValueError, match=r"'blocks\.2': the logits do not depend on its cells"):
        wrapped(made(Vit), "blocks.2", reshape=(4, 6))


def test_normalization_is_the_users(images):
    module = made(Little)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    expected = module((images - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(wrapped(module, "layer2", normalize=(mean.tolist(), std.tolist()))(images).logits, expected)
    bytes_ = wrapped(module, "layer2", normalize=lambda x: 255 * x)
    torch.testing.assert_close(bytes_(images).logits, module(255 * images))
    torch.testing.assert_close(wrapped(module, "layer2", normalize=(0.5, 2))(images).logits, module((images - 0.5) / 2))
    for bad in ((0.5, 0.0), ((0.1, 0.2), 1.0)):
        with pytest.raises(ValueError, match="a number or three each, std above 0"):
            wrapped(module, "layer2", normalize=bad)


def test_tokens_become_cells_row_by_row_and_come_back(images):
    module = made(Vit)
    net = wrapped(module, "blocks.1", reshape=(4, 6))
    (tokens,), logits = captured(module, ["blocks.1"], images)
    f = net.encode(images)
    for y in range(4):
        for x in range(6):
            torch.testing.assert_close(f.last[:, :, y, x], tokens[:, 1 + 6 * y + x])
    torch.testing.assert_close(f.extra["beside"], tokens[:, 0])
    torch.testing.assert_close(net.head(f).logits, logits)
    assert net.backbone.strides == (8,)
    with pytest.raises(ValueError, match=r"beside its grid \(a class token\).*got none for 4"):
        net.head(type(f)((f.last,)))
    with pytest.raises(ValueError, match="beside its grid"):
        wrapped(module, ["blocks.0", "blocks.1"], reshape=(4, 6)).encode(f.last, start=1)
    mirrored = wrapped(module, "blocks.1", reshape=lambda t: t[:, 1:].reshape(-1, 4, 6, 16).permute(0, 3, 1, 2).flip(3))
    torch.testing.assert_close(mirrored.encode(images).last, f.last.flip(3))
    torch.testing.assert_close(mirrored(images).logits, logits)


def test_tokens_of_another_form_are_not_laid_out_wrongly(images):
    turned = images.transpose(2, 3)
    net = wrapped(made(Vit, "mean"), "blocks.1", reshape=(4, 6))
    with pytest.raises(ValueError, match=r"makes 4 x 6 cells .* 'blocks\.1', where an image of 48 x 32 px has 6 x 4"):
        net.encode(turned)
    module = made(Vit, "mean")
    del module.positions
    module.positions = 0
    with pytest.raises(ValueError, match="an image of 64 x 96 px has 8 x 12"):  # 96 tokens, of which the last 24 are no grid
        wrapped(module, "blocks.1", reshape=(4, 6)).encode(torch.rand(1, 3, 64, 96))


@pytest.mark.parametrize(
    ("reshape", "message"),
    [
        (None, r"layer 'blocks\.1' puts out \(b, 25, 16\), no grid"),
        ((5, 6), r"needs tokens \(b, n, c\) with n >= 30; layer 'blocks\.1' puts out \(b, 25, 16\)"),
        (lambda t: t, r"reshape must make \(b, c, h, w\) of \(b, 25, 16\)"),
        (lambda t: t[:, 1:].reshape(-1, 16, 4, 6) * 2, "it changed them"),
        (lambda t: t[:, [1] * 24].reshape(-1, 16, 4, 6), "it repeats some"),
        (lambda t: t[:, 1:].reshape(-1, 16, 4, 6).float(), "it changed them"),
    ],
)
def test_reshape_only_moves_values(reshape, message):
    with pytest.raises(ValueError, match=message):
        wrapped(made(Vit), "blocks.1", reshape=reshape)


def test_a_function_that_moves_values_knows_the_sizes_it_has_seen(images):
    module = made(Swin)
    net = wrapped(module, "norm", reshape=lambda t: t.permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"shape \(1, 8, 5, 7\) were never encoded"):
        net.head(type(net.encode(images))((torch.rand(1, 8, 5, 7),)))
    other = torch.rand(2, 3, 20, 28)
    torch.testing.assert_close(net(other).logits, module(other))


def test_a_tail_that_reads_the_size_of_the_image_gets_an_image_of_that_size():
    class Drawer(Little):
        def forward(self, x):
            y = self.layer2(self.layer1(self.stem(x)))
            drawn = functional.interpolate(y, x.shape[2:], mode="bicubic", align_corners=False)
            return self.fc(drawn.amax((2, 3)))

    module = made(Drawer)
    net = wrapped(module, "layer2")
    assert net.parts.stand_ins[0].size is None
    for size in ((32, 48), (40, 24), (50, 60)):
        x = torch.rand(3, 3, *size)
        torch.testing.assert_close(net(x).logits, module(x))
    assert wrapped(made(Little), "layer2").parts.stand_ins[0] == (True, (32, 32))  # view(x.size(0), -1): one for each row


def test_the_layers_below_run_once_for_all_rows(images):
    module = made(UNet)
    net = wrapped(module, "out")
    f = net.encode(images)
    sizes = []
    handle = module.inc.register_forward_hook(lambda _m, _i, output: sizes.append(tuple(output.shape)))
    rows = torch.cat([f.last] * 5)
    net.parts.logits(rows, start=1)
    net.encode(images)
    handle.remove()
    assert sizes == [(1, 8, 32, 32), (4, 8, 32, 48)]


def test_a_sigmoid_becomes_two_logits(images):
    module = made(Little, classes=1)
    with pytest.raises(ValueError, match="one logit: say classes=2 if it goes into a sigmoid"):
        wrapped(module, "layer2")
    net = wrapped(module, "layer2", classes=2)
    torch.testing.assert_close(net(images).logits.softmax(1)[:, 1], module(images)[:, 0].sigmoid())
    torch.testing.assert_close(wrapped(module, "layer2", classes=1)(images).logits, module(images))
    flat = made(type("Flat", (Little,), {"forward": lambda self, x: Little.forward(self, x)[:, 0]}), classes=1)
    torch.testing.assert_close(wrapped(flat, "layer1", classes=2)(images).logits[:, 1], flat(images) / 2)
    with pytest.raises(ValueError, match="has 3 logits, not classes=2"):
        wrapped(made(Little), "layer2", classes=2)


@pytest.mark.parametrize("classes", [3, 1])
def test_a_linear_layer_on_the_mean_is_found(classes, images):
    module = made(Little, classes=classes)
    net = wrapped(module, "layer2", classes=max(classes, 2))
    assert net.head.affine
    f = net.encode(images)
    p = net.head(f)
    torch.testing.assert_close(p.maps.mean((2, 3)) + net.head.bias, p.logits)
    torch.testing.assert_close(p.logits, net.parts.logits(f.last, start=1))
    row = module.fc.weight[1] if classes == 3 else module.fc.weight[0] / 2
    torch.testing.assert_close(p.maps[:, 1], torch.einsum("c,bchw->bhw", row, f.last))
    with torch.no_grad():
        module.fc.weight.mul_(2)
    torch.testing.assert_close(net.head(f).maps, 2 * p.maps)  # the module's, as it is now


def test_other_heads_are_not_taken_for_linear_ones(images):
    class Rectified(Little):
        def forward(self, x):
            y = self.layer2.bn1(self.layer2.conv1(self.layer1(self.stem(x))))
            return self.fc(functional.relu(y, inplace=True).mean((2, 3)))

    class Strongest(Little):
        def forward(self, x):
            return self.fc(self.layer2(self.layer1(self.stem(x))).amax((2, 3)))

    for kind, layer in ((Rectified, "layer2.bn1"), (Strongest, "layer2"), (Little, "layer1"), (Vit, "patches")):
        module = made(kind)
        net = wrapped(module, layer)
        assert not net.head.affine
        assert not hasattr(net.head, "class_maps")
        torch.testing.assert_close(net(images).logits, logits_of(module(images)))
    module = made(Little)
    module.fc = nn.Sequential(nn.Unflatten(1, (16, 1, 1)), nn.Conv2d(16, 3, 1, bias=False), nn.Flatten())
    net = wrapped(module, "layer2")
    assert net.head.linear == "fc.1"
    assert (net.head.bias == 0).all()
    torch.testing.assert_close(net(images).logits, module(images))


def test_bags_are_pooled_as_by_our_heads(images):
    groups = torch.tensor([0, 0, 1, 1])
    for layer in ("layer1", "layer2"):
        net = wrapped(made(Little), layer)
        p = net(images, groups=groups)
        single = net(images).logits
        torch.testing.assert_close(p.extra["tile_logits"], single)
        torch.testing.assert_close(p.logits, torch.stack([single[:2].amax(0), single[2:].amax(0)]))  # top quarter of two: one


def test_precision_and_autocast(images):
    module = made(Little)
    net = wrapped(module, "layer1")
    expected = net(images).logits
    with torch.autocast("cpu", torch.bfloat16):
        f = net.encode(images)
        assert net.head(f).logits.dtype == torch.float32
    torch.testing.assert_close(net.head(f).logits, expected, rtol=0.1, atol=0.1)
    double = copy.deepcopy(net).double()
    assert next(double.parameters()).dtype == torch.float64
    torch.testing.assert_close(double(images.double()).logits, expected.double(), rtol=1e-4, atol=1e-5)
    assert next(module.parameters()).dtype == torch.float32  # the copy has a module of its own


def test_a_foreign_module_is_not_saved_here(tmp_path):
    module = made(Little)
    net = wrapped(module, "layer2")
    assert net.recipe is None
    with pytest.raises(ValueError, match="no recipe"):
        save_checkpoint(net, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"are its own: take module\.state_dict\(\)"):
        net.state_dict()
    assert [id(p) for p in net.parameters()] == [id(p) for p in module.parameters()]
    assert net.describe() == {
        "parameters": sum(p.numel() for p in module.parameters()),
        "stages": [{"channels": 16, "stride": 8}],
    }
    assert net.output_stride == 8


def test_encode_checks_what_it_gets(images):
    net = wrapped(made(Little), ["layer1", "layer2"])
    with pytest.raises(TypeError, match="as a float tensor"):
        net.encode((255 * images).to(torch.uint8))
    with pytest.raises(ValueError, match=r"of shape \(b, 12, h, w\)"):
        net.encode(images, start=1)
    with pytest.raises(ValueError, match=r"start must be a stage in 0\.\.1; got 2"):
        net.encode(images, start=2)
    with pytest.raises(ValueError, match="no stage 5"):
        net.encode(images, leaf=5)
    with pytest.raises(ValueError, match="size must be positive"):
        from_module(made(Little), "layer2", size=0)


@pytest.mark.parametrize("kind", ["resnet", "densenet", "efficientnet", "vit"])
def test_networks_of_monai(kind):
    from monai.networks import nets

    build, layers, options = {
        "resnet": (lambda: nets.resnet18(spatial_dims=2, n_input_channels=3, num_classes=3), ["layer2", "layer4"], {}),
        "densenet": (lambda: nets.DenseNet121(2, 3, 3), ["features.denseblock3", "features"], {}),
        "efficientnet": (
            lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, num_classes=3),
            ["_blocks.2", "_bn1"],
            {},
        ),
        "vit": (
            lambda: nets.ViT(3, 64, 16, 32, 64, 3, 2, classification=True, num_classes=3, spatial_dims=2),
            ["patch_embedding", "blocks.1"],
            {"reshape": (4, 4)},
        ),
    }[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
        module.train()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 1.0
        with torch.no_grad():
            module(torch.rand(4, 3, 64, 64))
    net = from_module(module, layers, size=64, **options)
    assert all(m.training for m in module.modules())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    f = net.encode(images, leaf=0)
    (slope,) = torch.autograd.grad(net.head(f).logits[:, 1].sum(), f.stages[0])
    outputs, logits = captured(module.eval(), layers, images)
    torch.testing.assert_close(net.head(f).logits, logits, rtol=1e-3, atol=1e-4)
    (expected,) = torch.autograd.grad(logits[:, 1].sum(), outputs[0])
    expected = expected if expected.ndim == 4 else expected[:, -16:].transpose(1, 2).reshape(2, -1, 4, 4)
    torch.testing.assert_close(slope, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
