"""Score-CAM and its kin against the authors' loops, one channel at a time, and the identities of the family."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from wsol.cams import cam, cams, score_cams
from wsol.cams.hiding import fill_color, probabilities
from wsol.models import Features, build_localizer, from_module


def up(m, size=(40, 56)):
    return functional.interpolate(m[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def minmax(m):
    return (m - m.min()) / (m.max() - m.min())


def slow_scores(net, image, target, change=lambda m: m, weighting="prob"):
    """The authors' loop: masks on the normalized image, one forward each, straight through the backbone; NaN if constant."""
    x = net.backbone.normalize(image[None])
    features = net.encode(image[None]).last[0].detach()
    scores = []
    for channel in features:
        m = up(channel)
        if m.max() == m.min():
            scores.append(torch.tensor(torch.nan))
            continue
        seen = x * change(minmax(m))
        for number in range(3):
            seen = net.backbone.stage(number, seen)
        logits = net.head(Features((seen,))).logits[0].detach()
        scores.append(logits.softmax(0)[target] if weighting == "prob" else logits[target])
    return torch.stack(scores), features


def combined(weights, features):
    return sum(w * a for w, a in zip(weights, features, strict=True) if not w.isnan())


def channel_softmax(scores):
    return scores.nan_to_num(nan=-torch.inf).softmax(0)


def close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("weighting", ["prob", "softmax_logit"])
def test_score_cam_is_the_authors_loop(net, images, targets, weighting):
    found = cam("score-cam", net, images, targets, weighting=weighting)
    for i in range(2):
        scores, features = slow_scores(net, images[i], targets[i], weighting=weighting)
        assert scores.isnan().any()  # the net has a dead channel, which is skipped
        close(found[i], combined(scores if weighting == "prob" else channel_softmax(scores), features))


def test_ss_cam_is_the_mean_over_noisy_masks(net, images, targets):
    seed = torch.Generator().manual_seed(9)
    found = cam("ss-cam", net, images[:2], targets[:2], n=3, sigma=0.7, generator=seed)
    inside = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(9))))
    noise = [0.7 * torch.randn(40, 56, generator=inside) for _ in range(3)]
    for i in range(2):
        runs = [slow_scores(net, images[i], targets[i], lambda m, e=e: m + e, "logit") for e in noise]
        close(found[i], combined(channel_softmax(torch.stack([r[0] for r in runs]).mean(0)), runs[0][1]))


@pytest.mark.parametrize(("path", "exposures"), [("cumulative", [1 / 3, 1, 2]), ("linear", [1 / 3, 2 / 3, 1])])
def test_is_cam_is_the_mean_over_exposures(net, images, targets, path, exposures):
    found = cam("is-cam", net, images[:2], targets[:2], n=3, path=path, weighting="prob")
    for i in range(2):
        runs = [slow_scores(net, images[i], targets[i], lambda m, a=a: a * m) for a in exposures]
        close(found[i], combined(torch.stack([r[0] for r in runs]).mean(0), runs[0][1]))


@pytest.mark.parametrize("weighting", ["prob", "softmax_logit"])
def test_the_kin_without_their_change_are_score_cam(net, images, targets, weighting):
    d = cams(
        {"score": "score-cam", "ss": "ss-cam", "is": "is-cam"},
        net,
        images,
        targets,
        options={"score": {"weighting": weighting}, "ss": {"weighting": weighting, "sigma": 0.0, "n": 2},
                 "is": {"weighting": weighting, "n": 1}},
    )  # fmt: skip
    close(d["ss"], d["score"])
    close(d["is"], d["score"])


@pytest.mark.parametrize("method", ["score-cam", "is-cam", "abs-cam"])
def test_the_order_of_channels_does_not_matter(method, net, images, targets):
    expected = cam(method, net, images, targets)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    last, norm = net.backbone.convs[-1], net.backbone.norms[-1]
    with torch.no_grad():
        for p in (last.weight, last.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            p.copy_(p[order].clone())
        net.head.weight.copy_(net.head.weight[:, order].clone())
    close(cam(method, net, images, targets), expected)


def test_one_channel_gives_that_channel(net, images, targets):
    with torch.no_grad():
        net.backbone.norms[-1].weight[1:] = 0
        net.backbone.norms[-1].bias[1:] = -1
        net.backbone.norms[-1].bias[0] = 1
    only = net.encode(images).last.detach()[:, 0]
    for weighting in ("prob", "softmax_logit"):
        m = cam("score-cam", net, images, targets, weighting=weighting)
        for found, channel in zip(m, only, strict=True):
            close(minmax(found), minmax(channel))
    close(cam("score-cam", net, images, targets, weighting="softmax_logit"), only)  # all the weight there is


def test_the_size_of_a_channel_does_not_change_its_score(net, images, targets):
    before = cam("score-cam", net, images, targets)
    scores, features = zip(*(slow_scores(net, i, t) for i, t in zip(images, targets, strict=True)), strict=True)
    louder = copy.deepcopy(net)
    with torch.no_grad():  # channel 3 becomes s times itself (ReLU is homogeneous), and the head undoes it
        louder.backbone.norms[-1].weight[3] *= 5
        louder.backbone.norms[-1].bias[3] *= 5
        louder.head.weight[:, 3] /= 5
    after = cam("score-cam", louder, images, targets)
    more = torch.stack([4 * w[3].nan_to_num() * a[3] for w, a in zip(scores, features, strict=True)])
    close(after, before + more)


def test_a_shift_of_all_logits_and_of_the_target_changes_nothing(net, images, targets):
    soft = cam("score-cam", net, images, targets, weighting="softmax_logit")
    both = cam("score-cam", net, images, targets)
    with torch.no_grad():
        net.head.bias += 3.0  # a baseline: softmax over classes and over channels ignore it
    close(cam("score-cam", net, images, targets, weighting="softmax_logit"), soft)
    close(cam("score-cam", net, images, targets), both)


def test_all_classes_come_from_one_masked_pass(net, images, monkeypatch):
    rows = []
    encode = net.backbone.stage
    monkeypatch.setattr(net.backbone, "stage", lambda i, x: rows.append(len(x) if i == 0 else 0) or encode(i, x))
    every = score_cams(net, images, weighting="softmax_logit")
    once = sum(rows)
    assert every.shape == (4, 3, 5, 7)
    for c in range(3):
        rows.clear()
        one = cam("score-cam", net, images, torch.full((4,), c), weighting="softmax_logit")
        assert torch.equal(one, every[:, c])
        assert sum(rows) == once
    rows.clear()
    options = {"b": {"weighting": "softmax_logit"}}
    cams({"a": "score-cam", "b": "score-cam", "c": "abs-cam"}, net, images, options=options)
    assert sum(rows) == once  # methods of one call share it
    with pytest.raises(RuntimeError, match=r"net\.eval"):
        score_cams(net.train(), images)


def test_a_channel_without_contrast_weighs_nothing(gap_net, images, targets):
    with torch.no_grad():
        gap_net.backbone.norms[-1].weight.zero_()
        gap_net.backbone.norms[-1].bias.fill_(0.3)  # constant features, not zero: N would be 0 / 0
    for weighting in ("prob", "softmax_logit"):
        assert (cam("score-cam", gap_net, images, targets, weighting=weighting) == 0).all()
    for mode in ("final", "final_channelnorm", "final_single"):
        assert (cam("abs-cam", gap_net, images, targets, mode=mode) == 0).all()


@pytest.mark.parametrize("fill", ["mean", "black", "white"])
def test_what_is_hidden_has_the_color_asked_for(fill):
    net = build_localizer("efficientnet_lite0", "gap", 2, weights=None).eval()
    color = fill_color(net, torch.rand(1, 3, 8, 8), fill)
    assert color.shape == (1, 3, 1, 1)
    expected = {"mean": 127 / 255, "black": 0.0, "white": 1.0}[fill]
    torch.testing.assert_close(color.flatten(), torch.full((3,), expected))
    if fill == "mean":
        assert net.backbone.normalize(color).abs().max() < 1e-6


def test_fill_reaches_the_net(gap_net, images, targets, monkeypatch):
    d = {fill: cam("score-cam", gap_net, images, targets, fill=fill) for fill in ("mean", "black", "white")}
    assert not torch.allclose(d["mean"], d["black"], rtol=1e-3)
    assert not torch.allclose(d["white"], d["black"], rtol=1e-3)
    monkeypatch.setattr(gap_net.backbone, "normalize", lambda x: x**3 - 0.3)
    with pytest.raises(ValueError, match="no color is 0 after the normalization"):
        cam("score-cam", gap_net, images, targets)


def test_a_single_logit_has_a_probability():
    logits = torch.tensor([[0.5], [-2.0]])
    torch.testing.assert_close(probabilities(logits), logits.sigmoid())
    torch.testing.assert_close(probabilities(torch.tensor([[0.5, -2.0]])).sum(), torch.tensor(1.0))


def test_bf16_is_the_same_map_in_fewer_digits(net, images, targets):
    exact, short = (cam("score-cam", net, images, targets, bf16=bf16) for bf16 in (False, True))
    assert not torch.equal(exact, short)
    close(short, exact, 0.03)


def test_abs_init_is_at_least_grad_cam_and_equal_under_one_sign(net, images, targets):
    d = cams(["abs-cam", "grad-cam"], net, images, targets, options={"abs-cam": {"mode": "init"}})
    assert (d["abs-cam"] >= d["grad-cam"] - 1e-6).all()
    assert (d["abs-cam"] > d["grad-cam"] + 1e-3).any()
    with torch.no_grad():
        net.head.weight.abs_()
    d = cams(["abs-cam", "grad-cam"], net, images, targets, options={"abs-cam": {"mode": "init"}})
    close(d["abs-cam"], d["grad-cam"])


def test_abs_init_does_not_know_the_sign_of_the_class(net, images):
    before = cam("abs-cam", net, images, torch.zeros(4, dtype=torch.int64), mode="init")
    with torch.no_grad():
        net.head.weight[1] = -net.head.weight[0]
    if type(net.head).__name__ == "Gap":  # two logits y and -y
        close(cam("abs-cam", net, images, torch.ones(4, dtype=torch.int64), mode="init"), before)
    assert cam("abs-cam", net, None, None, mode="init", features=net.encode(images)).shape == (4, 5, 7)  # without images


def test_abs_cam_modes_against_loops(net, images, targets):
    modes = {m: {"mode": m} for m in ("init", "final", "final_channelnorm", "final_single")}
    d = cams(dict.fromkeys(modes, "abs-cam"), net, images, targets, options=modes)
    f = net.encode(images, leaf=-1)
    (slope,) = torch.autograd.grad(net.head(f).logits.gather(1, targets[:, None]).sum(), f.last)
    for i in range(2):
        chance, features = slow_scores(net, images[i], targets[i])
        alpha = slope[i].abs().mean((1, 2))
        close(d["init"][i], combined(alpha, features))
        close(d["final"][i], combined(chance * alpha, features))
        normed = combined(chance, torch.stack([minmax(up(a)).nan_to_num() for a in features]))
        close(up(d["final_channelnorm"][i]), normed)  # up is linear: scaling with the ends of up(A) may come before it
        single = minmax(up(d["init"][i]))
        p = net(0.5 + single * (images[i : i + 1] - 0.5)).logits.detach().softmax(1)[0, targets[i]]
        close(up(d["final_single"][i]), p * single)


def test_options_out_of_range_are_refused(net, images):
    for method, options, message in (
        ("score-cam", {"weighting": "softmax-logit"}, "did you mean 'softmax_logit'"),
        ("score-cam", {"fill": "wite"}, "unknown fill 'wite'; did you mean 'white'"),
        ("score-cam", {"layers": [0, 1]}, "draws one layer"),
        ("ss-cam", {"n": 0}, "n must be at least 1"),
        ("ss-cam", {"sigma": -1.0}, "sigma at least 0; got n=35, sigma=-1.0"),
        ("is-cam", {"n": 0}, "n must be at least 1; got 0"),
        ("is-cam", {"path": "cumulated"}, "did you mean 'cumulative'"),
        ("abs-cam", {"mode": "finale"}, "did you mean 'final'"),
    ):
        with pytest.raises(ValueError, match=message):
            cam(method, net, images, **options)


def test_int8_is_the_same_map_in_fewer_digits(net, images, targets):
    exact, short = (cam("score-cam", net, images, targets, int8=int8) for int8 in (False, True))
    assert not torch.equal(exact, short)
    close(short, exact, 0.03)
    assert torch.equal(cam("score-cam", net, images, targets), exact)  # nothing stays behind


@pytest.mark.parametrize(
    ("method", "options"),
    [("is-cam", {"n": 2, "weighting": "prob"}), ("abs-cam", {}), ("ss-cam", {"n": 2, "sigma": 0.1, "weighting": "prob"})],
)
def test_the_kin_take_int8_too(method, options, net, images, targets):
    exact, short = (cam(method, net, images, targets, int8=int8, **options) for int8 in (False, True))
    assert not torch.equal(exact, short)
    close(short, exact, 0.05)


def test_a_foreign_module_takes_int8_too(net, images, targets):
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net
            self.end = torch.nn.ReLU()

        def forward(self, x):
            for number in range(2):
                x = net.backbone.stage(number, x)
            x = self.end(net.backbone.stage(2, x))
            return net.head(Features((x,))).logits

    foreign = from_module(Whole(), "end", normalize=(0.5, 1.0), size=40)
    short = cam("score-cam", foreign, images, targets, int8=True)
    close(short, cam("score-cam", net, images, targets), 0.03)


def test_int8_shares_no_pass_with_float32(net, images, targets):
    options = {"a": {}, "b": {"int8": True}}
    d = cams({"a": "score-cam", "b": "score-cam"}, net, images, targets, options=options)
    assert torch.equal(d["a"], cam("score-cam", net, images, targets))
    assert torch.equal(d["b"], cam("score-cam", net, images, targets, int8=True))
    with pytest.raises(ValueError, match="bf16 and int8 exclude each other"):
        cam("score-cam", net, images, targets, int8=True, bf16=True)
    for option in ("bf16", "int8"):
        with pytest.raises(ValueError, match=f"{option}=True is for a float32 net, this one is float64: leave {option} out"):
            cam("score-cam", copy.deepcopy(net).double(), images.double(), targets, **{option: True})


def test_all_classes_are_checked_as_one_is(gap_net, images):
    with pytest.raises(ValueError, match="budget must be positive"):
        score_cams(gap_net, images, budget=0)
    with pytest.raises(TypeError, match="did you mean 'weighting'"):
        score_cams(gap_net, images, weightin="prob")
