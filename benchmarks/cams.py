"""The saliency family against named peers, in one run: `python benchmarks/cams.py [--net resnet50] [--only score,fd]`.

Prints ratios, not absolute times: CPU seconds (user + sys) of this process at one thread, best of the rounds, the peers
interleaved with ours, all on the same weights (MONAI's ResNets, random) and the same images. Beside each ratio stands what we aim
at, and how far our map lies from the peer's, since a wrong map is quick: where the peer's own formula is another one, from the
definition written out in a loop here. Ours are resized to the image and scaled like grad-cam's.

The peers: grad-cam, torchcam, captum and MONAI. grad-cam imports torchvision, for pictures and for detectors; where torchvision
does not import (it fits few versions of torch), names without content stand in for it, which its CAM classes never touch:
`pip install --no-deps grad-cam ttach torchcam`. A peer that does not import is named with the reason.
"""

from __future__ import annotations

import argparse
import copy
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # grad-cam draws progress bars

import numpy as np
import torch
from peers import bfloat16, peers, processor, timed
from torch import Tensor, nn
from torch.nn import functional

from wsol.cams import cam, cams, finish
from wsol.models import Localizer, from_module

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIVE = {
    "GradCAM": "grad-cam",
    "GradCAMPlusPlus": "grad-cam++",
    "HiResCAM": "hirescam",
    "XGradCAM": "xgrad-cam",
    "LayerCAM": "layer-cam",
}
FOUR = {"GradCAM": "grad-cam", "GradCAMpp": "grad-cam++", "XGradCAM": "xgrad-cam", "LayerCAM": "layer-cam"}
BROKEN = ("grad-cam++",)  # grad-cam adds 1e-6 to a smaller number, torchcam divides a copy: another formula


class Scene(NamedTuple):
    """A classifier, its localizer, and one image."""

    module: nn.Module
    net: Localizer
    images: Tensor
    x: Tensor  # the same, normalized, for those who call the module
    targets: Tensor

    def forward(self) -> Tensor:
        """What the module says of the image, without a graph."""
        with torch.no_grad():
            return self.module(self.x)

    def ours(self, method: str, **options: Any) -> Tensor:
        """Our map of the target, resized and scaled."""
        return finish(cam(method, self.net, self.images, self.targets, **options), self.images.shape[2:], relu=True)


def scene(name: str, size: int) -> Scene:
    """`name` of MONAI's ResNets as torchvision has it, cut at layer3 and layer4, and an image of `size` px."""
    import monai.networks.nets

    torch.manual_seed(0)
    make = getattr(monai.networks.nets, name)
    module = make(spatial_dims=2, n_input_channels=3, num_classes=2, conv1_t_stride=2, shortcut_type="B", bias_downsample=False)
    images = torch.rand(1, 3, size, size)
    x = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    net = from_module(module.eval(), ["layer3", "layer4"], normalize=(MEAN, STD))
    return Scene(module, net, images, x, module(x).argmax(1))


def apart(found: Any, expected: Any) -> float:
    """Largest difference, in units of the largest magnitude expected."""
    a, b = (torch.as_tensor(np.asarray(m.detach() if isinstance(m, Tensor) else m)).flatten() for m in (found, expected))
    return float((a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny))  # a map may be all 0


def say(what: str, ratio: float, aim: str, agreement: str = "") -> None:
    print(f"  {what}: {ratio:.2f}x (aim: {aim}){', ' + agreement if agreement else ''}")


def gildenblat(scene: Scene, kind: Any, layer: str = "layer4", **options: Any) -> tuple[Any, Any]:
    """A CAM of grad-cam as it is called: (its finished map, its raw map)."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(t)) for t in scene.targets]
    place = scene.module.get_submodule(layer)
    raws = []

    class Kept(kind):
        def get_cam_image(self, *args: Any) -> Any:
            raws.append(super().get_cam_image(*args))
            return raws[-1]

    with Kept(model=scene.module, target_layers=[place], **options) as extractor:
        drawn = extractor(input_tensor=scene.x, targets=targets)
    scene.module.zero_grad(set_to_none=True)
    return drawn, raws[-1]


def torchcam(scene: Scene, kind: Any) -> Tensor:
    """A CAM of torchcam as it is called; raw and rectified."""
    with kind(scene.module, "layer4") as extractor:
        scores = scene.module(scene.x)
        drawn: Tensor = extractor(scene.targets.tolist(), scores, normalized=False)[0]
        return drawn


def gradient(scene: Scene, found: dict[str, Any], rounds: int) -> None:
    """The five maps of the last stage, in one call."""
    size = scene.images.shape[2:]

    def five() -> list[Tensor]:
        maps = cams(list(FIVE.values()), scene.net, scene.images, scene.targets)
        return [finish(m, size, relu=True) for m in maps.values()]

    def half() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return five()

    work: dict[str, Callable[[], Any]] = {"forward": scene.forward, "five": five}
    if bfloat16():
        work["half"] = half
    if "grad-cam" in found:
        work["grad-cam"] = lambda: [gildenblat(scene, getattr(found["grad-cam"], kind)) for kind in FIVE]
    if "torchcam" in found:
        work["torchcam"] = lambda: [torchcam(scene, getattr(found["torchcam"], kind)) for kind in FOUR]
    if "captum" in found:
        captum = found["captum"].LayerGradCam(scene.module, scene.module.get_submodule("layer4"))
        work["captum"] = lambda: captum.attribute(scene.x, target=scene.targets)
    if "monai" in found:
        monai = found["monai"].GradCAM(copy.deepcopy(scene.module), "layer4")  # its hooks stay: a copy
        work["monai"] = lambda: monai.compute_map(scene.x, class_idx=int(scene.targets[0]))
    best = timed(work, rounds)
    raw = cams(list(FIVE.values()), scene.net, scene.images, scene.targets)
    say("five maps in one call, of a bare forward", best["five"] / best["forward"], "at most 1.2")
    if "grad-cam" in found:
        others = {ours: gildenblat(scene, getattr(found["grad-cam"], kind))[1] for kind, ours in FIVE.items()}
        gap = max(apart(raw[ours], m) for ours, m in others.items() if ours not in BROKEN)
        say("five maps against five of grad-cam", best["grad-cam"] / best["five"], "10", f"four raw maps {gap:.0e} apart")
    if "torchcam" in found:
        others = {ours: torchcam(scene, getattr(found["torchcam"], kind)) for kind, ours in FOUR.items()}
        gap = max(apart(raw[ours].relu(), m) for ours, m in others.items() if ours not in BROKEN)
        say("five maps against four of torchcam", best["torchcam"] / best["five"], "3", f"three raw maps {gap:.0e} apart")
    for name, signed in (("captum", True), ("monai", False)):
        if name in found:
            gap = apart(raw["grad-cam"] if signed else raw["grad-cam"].relu(), work[name]())
            say(f"five maps against Grad-CAM alone of {name}", best[name] / best["five"], "none", f"{gap:.0e} apart")
    for name, aim in (("grad-cam", "20"), ("torchcam", "6")):
        if name in found and bfloat16():
            say(f"the same in bfloat16 against {name}", best[name] / best["half"], aim)
    if not bfloat16():
        print("  in bfloat16 (aims: 20 and 6): not measured, this processor computes bfloat16 in software")


def score(scene: Scene, found: dict[str, Any], rounds: int) -> None:
    """Score-CAM: one forward per channel."""
    work: dict[str, Callable[[], Any]] = {
        "ours": lambda: scene.ours("score-cam", weighting="softmax_logit"),
        "int8": lambda: scene.ours("score-cam", weighting="softmax_logit", int8=True),
    }
    if bfloat16():
        work["half"] = lambda: scene.ours("score-cam", weighting="softmax_logit", bf16=True)
    if "grad-cam" in found:
        work["grad-cam"] = lambda: gildenblat(scene, found["grad-cam"].ScoreCAM)
    if "torchcam" in found:
        work["torchcam"] = lambda: torch.no_grad()(torchcam)(scene, found["torchcam"].ScoreCAM)
    best = timed(work, rounds)
    gap = apart(cam("score-cam", scene.net, scene.images, scene.targets, weighting="softmax_logit"), score_by_hand(scene))
    known = [name for name in ("grad-cam", "torchcam") if name in best]
    for name in known:
        say(f"Score-CAM in float32 against {name}", best[name] / best["ours"], "none", f"{gap:.0e} from the definition")
    if known:
        say("in int8 against the best peer", min(best[name] for name in known) / best["int8"], "4 with VNNI")
    if known and bfloat16():
        gap = float((work["half"]() - work["ours"]()).abs().max())
        agreement = f"scaled maps {gap:.3f} apart, which says little on random weights: see ScoreCam"
        say("in bfloat16 against the best peer", min(best[name] for name in known) / best["half"], "2.2 at 0.01", agreement)
    elif not bfloat16():
        print("  in bfloat16 (aim: 2.2): not measured, this processor computes bfloat16 in software")


def score_by_hand(scene: Scene) -> Tensor:
    """Masks are channels resized to the image, then min-max scaled; weights a softmax over the channels of the target's logit."""
    features = scene.net.encode(scene.images).last[0].detach()
    up = functional.interpolate(features[:, None], scene.x.shape[2:], mode="bilinear", align_corners=False)
    low, high = up.amin((1, 2, 3), keepdim=True), up.amax((1, 2, 3), keepdim=True)
    seen = (high > low).flatten()
    with torch.no_grad():
        logits = torch.cat([scene.module(scene.x * m) for m in ((up - low) / (high - low))[seen].split(16)])
    return torch.einsum("c,chw->hw", logits[:, int(scene.targets[0])].softmax(0), features[seen])


def ablation(scene: Scene, found: dict[str, Any], rounds: int) -> None:
    """Ablation-CAM above the last stage, where it is a formula, and one stage earlier."""
    if "grad-cam" not in found:
        return
    kind = found["grad-cam"].AblationCAM
    for layer, number, aim in (("layer4", -1, "100"), ("layer3", -2, "5")):
        best = timed(
            {
                "ours": lambda n=number: scene.ours("ablation-cam", layers=[n]),
                "grad-cam": lambda place=layer: gildenblat(scene, kind, place),
            },
            rounds,
        )
        sign = scene.forward().gather(1, scene.targets[:, None]).sign()  # it divides by the logit, we by its magnitude
        mine = cam("ablation-cam", scene.net, scene.images, scene.targets, layers=[number], relative=True) * sign[..., None]
        agreement = f"raw maps {apart(mine, gildenblat(scene, kind, layer)[1]):.0e} apart"
        say(f"Ablation-CAM at {layer} against grad-cam", best["grad-cam"] / best["ours"], aim, agreement)


def eigen(scene: Scene, found: dict[str, Any], rounds: int) -> None:
    """Eigen-CAM; grad-cam centers the features first, which is another map."""
    work: dict[str, Callable[[], Any]] = {"ours": lambda: scene.ours("eigen-cam")}
    rows = scene.net.encode(scene.images).last[0].flatten(1).T.detach().double()
    expected = (rows @ torch.linalg.svd(rows, full_matrices=False).Vh[0]).abs()
    agreement = f"{apart(cam('eigen-cam', scene.net, scene.images).abs().double(), expected):.0e} from the definition"
    if "grad-cam" in found:
        work["grad-cam"] = lambda: gildenblat(scene, found["grad-cam"].EigenCAM)
        best = timed(work, rounds)
        say("Eigen-CAM against grad-cam", best["grad-cam"] / best["ours"], "2 with resnet50", agreement)


def recipro(scene: Scene, found: dict[str, Any], rounds: int) -> None:
    """Recipro-CAM, which no peer has; the definition is one copy of the features for each place."""
    features = scene.net.encode(scene.images).last[0].detach()
    spots = torch.eye(features[0].numel()).view(-1, 1, *features.shape[1:])
    chances = scene.module.fc((features * spots).mean((2, 3))).softmax(1)[:, int(scene.targets[0])]
    against_forward(scene, "recipro-cam", "Recipro-CAM", chances, rounds)


def fd(scene: Scene, found: dict[str, Any], rounds: int) -> None:
    """FD-CAM, which no peer has; the definition asks the head twice for each group of channels."""
    target = int(scene.targets[0])
    stages = scene.net.encode(scene.images, leaf=-1)
    (slope,) = torch.autograd.grad(scene.net.head(stages).logits[0, target], stages.last)
    features = stages.last[0].detach()
    rows = functional.normalize(features.flatten(1), eps=1e-30)
    cosines = rows @ rows.T
    group = (cosines > torch.stack([row.quantile(0.95) for row in cosines])[:, None]) | torch.eye(len(rows), dtype=torch.bool)

    def logit(kept: Tensor) -> Tensor:
        return scene.module.fc((features * kept[:, None, None]).mean((1, 2)))[target]

    with torch.no_grad():
        whole = scene.module(scene.x)[0, target]
        scores = torch.stack([logit(g) + whole - logit(~g) for g in group])
    unit = [(s - s.min()) / (s.max() - s.min()) for s in (scores, slope[0].mean((1, 2)))]
    expected = torch.einsum("c,chw->hw", unit[0].exp() * unit[1] - 0.5, features)
    against_forward(scene, "fd-cam", "FD-CAM", expected, rounds)


def against_forward(scene: Scene, method: str, name: str, expected: Tensor, rounds: int) -> None:
    best = timed({"forward": scene.forward, "ours": lambda: scene.ours(method)}, rounds)
    agreement = f"{apart(cam(method, scene.net, scene.images, scene.targets), expected):.0e} from the definition"
    say(f"{name}, of a bare forward", best["ours"] / best["forward"], "1, the cost of a forward", agreement)


SECTIONS = {"gradient": gradient, "score": score, "ablation": ablation, "eigen": eigen, "recipro": recipro, "fd": fd}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=("resnet18", "resnet50"), default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="side of the image in px")
    parser.add_argument("--rounds", type=int, default=5, help="of the quick sections; those of minutes have a third")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, comma-separated")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in SECTIONS]:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the peers' own
    print(f"{processor()}; torch {torch.__version__}, one thread; {options.net}, GAP head, one image of {options.size} px")
    found = peers()
    scenery = scene(options.net, options.size)
    for name in chosen:
        print(name)
        slow = name in ("score", "ablation")
        SECTIONS[name](scenery, found, max(1, options.rounds // 3) if slow else options.rounds)


if __name__ == "__main__":
    main()
