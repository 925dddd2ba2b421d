from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wsol.models import Localizer, build_localizer, checkpoint_recipe, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def net() -> Localizer:
    made = build_localizer(
        "efficientnet_lite0", "lse", 3, weights=None, output_stride=16, freeze_bn=False, head_options={"r": 4.0, "bag_top": 0.5}
    )
    made(torch.rand(2, 3, 64, 64))  # statistics other than at the start
    return made.to(memory_format=torch.channels_last).eval()


def test_reload_gives_identical_outputs(net: Localizer, tmp_path: Path):
    weights, card = save_checkpoint(net, tmp_path / "deep" / "b-cl.safetensors", {"epoch": 3, "classes": ["a", "b", "c"]})
    again = load_checkpoint(weights)
    x = torch.rand(2, 3, 64, 80)
    with torch.no_grad():
        plain, theirs = net.to(memory_format=torch.contiguous_format)(x), again(x)
    assert torch.equal(plain.logits, theirs.logits)
    assert torch.equal(plain.maps, theirs.maps)
    assert not again.training
    assert again.recipe == net.recipe
    assert again.head.r == 4.0
    assert checkpoint_recipe(weights) == (net.recipe, {"epoch": 3, "classes": ["a", "b", "c"]})
    assert sorted(p.name for p in weights.parent.iterdir()) == ["b-cl.json", "b-cl.safetensors"]
    assert card.name == "b-cl.json"
    assert save_checkpoint(again, weights) == (weights, card)  # a loaded net can be saved


def test_missing_damaged_and_mismatched_files_are_told_apart(net: Localizer, tmp_path: Path):
    path, card = save_checkpoint(net, tmp_path / "x.safetensors")
    whole, text = path.read_bytes(), card.read_text()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"is not the file that x\.json describes"):
        load_checkpoint(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_checkpoint(path)
    path.write_bytes(whole)
    card.write_text(text[:50])
    with pytest.raises(ValueError, match=r"x.json is damaged"):
        load_checkpoint(path)
    card.write_text("{}")
    with pytest.raises(ValueError, match="no checkpoint card of format 1"):
        load_checkpoint(path)
    card.unlink()
    with pytest.raises(FileNotFoundError, match=r"no recipe at .*x.json"):
        load_checkpoint(path)
    changed = json.loads(text)
    changed["recipe"]["num_classes"] = 5
    card.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"does not fit Localizer: 2 wrong shape: head.weight \(3, 1280\) for \(5, 1280\)"):
        load_checkpoint(path)


def test_a_failed_save_leaves_the_old_checkpoint(net: Localizer, tmp_path: Path, monkeypatch):
    path, card = save_checkpoint(net, tmp_path / "x.safetensors", {"epoch": 1})
    before = path.read_bytes(), card.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(net, path, {"epoch": object()})
    with monkeypatch.context() as patch:
        patch.setattr("wsol._files.os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(net, path, {"epoch": 2})
    assert (path.read_bytes(), card.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_a_checkpoint_is_refused(net: Localizer, tmp_path: Path):
    with pytest.raises(ValueError, match=r"named \*.safetensors; got x.pth"):
        save_checkpoint(net, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="no recipe"):
        save_checkpoint(Localizer(net.backbone, net.head), tmp_path / "x.safetensors")
