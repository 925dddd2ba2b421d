"""Laws that hold for every head of the table, in a loop over the table; a head's own answers are in a file of its own."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

from wsol._names import resolve
from wsol.models import HEADS, Features, Head, build_localizer, load_checkpoint, save_checkpoint
from wsol.models.heads.linear import ClassMapHead
from wsol.training import cross_entropy

every_head = pytest.mark.parametrize("name", HEADS)
KINDS = {name: resolve("head", name, HEADS, "wsol.models") for name in HEADS}
CHANNELS, SIDES = (8, 12, 16), ((24, 40), (12, 20), (6, 10))

EVIDENCE = {"deep-mil": {"draws": "evidence"}}
"""Options with which the maps are evidence for a class, where by default they are something else (attention)."""

OTHERS = {
    "lse": {"r": 4.0},
    "wildcat": {"modalities": 3, "kmin": 0},
    "top-k": {"share": 0.4},
    "prm": {"dense": True},
    "deep-mil": {"gated": True, "draws": "score", "width": 8},
    "attention-mil": {"gated": True, "width": 8},
}
"""Options other than the default, which a checkpoint has to bring back."""

ON_DEMAND = {"masker": ("selector", "steps", "last")}
"""Parts that logits and maps are not made of: they run when they are asked."""


def stages(b=4, seed=0, dtype=torch.float32, scale=1.0):
    """Features after a ReLU, fine -> coarse; a transformer's attention of the class token beside them."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(b, c, *side, generator=generator).relu() for c, side in zip(CHANNELS, SIDES, strict=True)]
    attention = torch.rand(b, 2, *SIDES[-1], generator=generator)
    return Features(tuple((scale * x).to(dtype) for x in made), {"attention": attention.to(dtype)})


def head(name, classes=3, seed=0, **options) -> Head:
    kind = KINDS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(CHANNELS if kind.reads == "stages" else CHANNELS[-1], classes, **options).eval()


def assert_same(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1)


@every_head
def test_the_facts_are_stated(name):
    kind = KINDS[name]
    assert issubclass(kind, Head)
    assert len(kind.paper) > 10
    assert kind.reads in ("last", "stages")
    assert kind.__doc__
    assert all(p.default is not p.empty for p in inspect.signature(kind).parameters.values() if p.kind is p.KEYWORD_ONLY)


@every_head
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_any_number_of_classes(name, classes):
    p = head(name, classes)(stages())
    assert p.logits.shape == (4, classes)
    assert p.maps is None or p.maps.shape[:2] == (4, classes)
    assert torch.isfinite(p.logits).all()


@every_head
def test_images_do_not_mix(name):
    net, f = head(name), stages()
    whole = net(f)
    for i in range(4):
        one = net(Features(tuple(s[i : i + 1] for s in f.stages), {k: v[i : i + 1] for k, v in f.extra.items()}))
        assert_same(one.logits, whole.logits[i : i + 1])
        assert whole.maps is None or (one.maps - whole.maps[i : i + 1]).abs().max() <= 1e-5 * whole.maps.abs().max()


@every_head
def test_a_bag_of_one_tile_is_the_image(name):
    net, f = head(name), stages()
    alone, bags = net(f), net(f, groups=torch.tensor([2, 0, 3, 1]))
    assert_same(bags.logits, alone.logits[[1, 3, 0, 2]], 1e-6)
    assert torch.equal(bags.extra["tile_logits"], alone.logits)
    if alone.maps is not None:
        assert torch.equal(bags.maps, alone.maps)


@every_head
def test_the_order_of_the_tiles_does_not_matter(name):
    net, f, groups = head(name), stages(7), torch.tensor([0, 1, 0, 2, 0, 2, 0])
    order = torch.tensor([6, 3, 0, 5, 1, 4, 2])
    moved = Features(tuple(s[order] for s in f.stages), {k: v[order] for k, v in f.extra.items()})
    bags = net(f, groups=groups).logits
    assert bags.shape == (3, 3)
    assert_same(net(moved, groups=groups[order]).logits, bags)


@every_head
def test_a_bag_lies_between_its_tiles_or_says_otherwise(name):
    """A mean of tiles, however weighted; noisy-or adds up, so it lies above."""
    p = head(name)(stages(7), groups=torch.zeros(7, dtype=torch.int64))
    tiles = p.extra["tile_logits"]
    assert (p.logits[0] >= tiles.amin(0) - 1e-5).all()
    assert name == "noisy-or" or (p.logits[0] <= tiles.amax(0) + 1e-5).all()


@every_head
def test_a_slide_may_be_read_batch_by_batch(name):
    """States of batches, concatenated and pooled after the last tile, give the logits of the whole bag."""
    net, f = head(name), stages(7)
    whole = net(f, groups=torch.zeros(7, dtype=torch.int64)).logits
    states = []
    for part in (slice(0, 3), slice(3, 4), slice(4, 7)):
        tiles = net(Features(tuple(s[part] for s in f.stages), {k: v[part] for k, v in f.extra.items()}))
        states.append(net.bag_state(tiles))
    pooled = net.pool_bags(torch.cat(states), torch.zeros(7, dtype=torch.int64))
    assert_same(pooled, whole)
    with pytest.raises(ValueError, match=r"groups must be int64 \(7,\)"):
        net.pool_bags(torch.cat(states), torch.zeros(6, dtype=torch.int64))


@every_head
@pytest.mark.parametrize("bags", [True, False])
def test_every_weight_learns(name, bags):
    """From the labels of bags or images: cross-entropy, and what the head is trained on besides."""
    net, f = head(name).train(), stages(8)
    groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]) if bags else None
    labels = torch.tensor([0, 1, 2, 0]) if bags else torch.arange(8) % 3
    p = net(f, groups=groups, labels=labels)
    loss = cross_entropy(p.logits, labels) + sum(net.loss(p, labels).values())
    if p.pixels is not None:
        loss = loss + p.pixels.square().mean()
    loss.backward()
    quiet = {n for n, w in net.named_parameters() if w.requires_grad and (w.grad is None or not w.grad.any())}
    quiet -= {n for n in quiet if n.startswith(ON_DEMAND.get(name, ()))}
    if name == "attention-mil" and not bags:  # a tile alone has all attention
        quiet -= {"attention.hidden.weight", "attention.hidden.bias", "attention.score.weight"}
    assert not quiet
    assert all(torch.isfinite(w.grad).all() for w in net.parameters() if w.grad is not None)


@every_head
def test_half_precision_in_single_precision_out(name):
    net, f = head(name), stages()
    half = Features(tuple(s.bfloat16() for s in f.stages), {k: v.bfloat16() for k, v in f.extra.items()})
    single = Features(tuple(s.float() for s in half.stages), {k: v.float() for k, v in half.extra.items()})
    expected, groups = net(single), torch.tensor([0, 0, 1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found, bags = net(half), net(half, groups=groups)
    assert found.logits.dtype == bags.logits.dtype == torch.float32
    assert_same(found.logits, expected.logits, 1e-6)
    assert_same(bags.logits, net(single, groups=groups).logits, 1e-6)
    if expected.maps is not None:
        assert found.maps.dtype == torch.float32
        assert_same(found.maps, expected.maps, 1e-6)


@every_head
def test_double_precision_stays_double(name):
    p, expected = head(name).double()(stages(dtype=torch.float64)), head(name)(stages())
    assert p.logits.dtype == torch.float64
    assert_same(p.logits.float(), expected.logits, 1e-4)


@every_head
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_extreme_features_stay_finite(name, scale):
    net, f, labels = head(name).train(), stages(scale=scale), torch.tensor([0, 1])
    leaf = f.last.clone().requires_grad_(True)
    p = net(Features((*f.stages[:-1], leaf), f.extra), groups=torch.tensor([0, 0, 1, 1]), labels=labels)
    (cross_entropy(p.logits, labels) + sum(net.loss(p, labels).values())).backward()
    assert torch.isfinite(p.logits).all()
    assert p.maps is None or torch.isfinite(p.maps).all()
    assert torch.isfinite(leaf.grad).all()
    assert all(torch.isfinite(w.grad).all() for w in net.parameters() if w.grad is not None)


@every_head
def test_a_map_is_raw_and_without_bias(name):
    net, f = head(name), stages()
    base = getattr(net, "base", net)
    if not isinstance(base, ClassMapHead):
        pytest.skip("has no bias per class")
    before = net(f)
    with torch.no_grad():
        base.bias += torch.tensor([5.0, -5.0, 0.0])
    after = net(f)
    assert torch.equal(after.maps, before.maps)
    assert (after.logits[:, 0] > before.logits[:, 0]).all()
    assert (after.logits[:, 1] < before.logits[:, 1]).all()
    assert torch.equal(after.logits[:, 2], before.logits[:, 2])


@every_head
@pytest.mark.parametrize("c", [0, 1, 2])
def test_the_map_of_a_class_shows_what_speaks_for_it(name, c):
    """What makes class c the answer where it fills the image, planted in one place of another image, lights map c there."""
    if name == "acol":
        pytest.skip("joins the maps of two branches that random weights do not tell apart, see test_acol.py")
    net, f = head(name, **EVIDENCE.get(name, {})), stages(1)
    beside = {"attention": torch.ones(1, 2, *SIDES[-1])}
    cell = torch.zeros(1, CHANNELS[-1], 1, 1, requires_grad=True)
    climb = torch.optim.Adam([cell], lr=0.5)
    for _ in range(60):
        climb.zero_grad()
        logits = net(Features((*f.stages[:-1], cell.expand(1, -1, *SIDES[-1])), beside)).logits[0]
        (logits.mean() - logits[c]).backward()
        climb.step()
    planted = f.last.clone()
    planted[:, :, 2:5, 5:8] = cell.detach()
    maps = net(Features((*f.stages[:-1], planted), beside)).maps[0].detach()
    y, x = divmod(int(maps[c].argmax()), SIDES[-1][1])
    reach = 1 if isinstance(getattr(net, "base", net), ClassMapHead) else 2  # convolutions look around
    assert abs(y - 3) <= reach
    assert abs(x - 6) <= reach
    assert maps[:, 2:5, 5:8].mean((1, 2)).argmax() == c


@every_head
def test_evaluation_repeats_itself(name):
    net, f = head(name), stages()
    state = torch.get_rng_state()
    assert torch.equal(net(f).logits, net(f).logits)
    assert torch.equal(torch.get_rng_state(), state)


@every_head
def test_an_unknown_option_names_the_valid_ones(name):
    with pytest.raises(TypeError, match=rf"unknown option 'no_such' of head '{re.escape(name)}'.*known:"):
        build_localizer("efficientnet_lite0", name, 2, weights=None, head_options={"no_such": 1})


@every_head
def test_a_checkpoint_brings_the_head_back(name, tmp_path):
    if name == "ts-cam":
        pytest.skip("needs a transformer, see test_ts_cam.py")
    options = OTHERS.get(name, {})
    net = build_localizer("efficientnet_lite0", name, 3, weights=None, head_options=options).eval()
    save_checkpoint(net, tmp_path / "x.safetensors")
    again = load_checkpoint(tmp_path / "x.safetensors")
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = net(images, groups=torch.tensor([0, 0])), again(images, groups=torch.tensor([0, 0]))
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.maps, theirs.maps)
    assert all(getattr(again.head, key) == value for key, value in options.items() if hasattr(again.head, key))
