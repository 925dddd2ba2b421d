"""Backbones in a study and in `wsol list`: names of timm are known by their prefix, without timm and without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wsol.cli.catalog import catalog
from wsol.cli.config import ConfigError, load_config


def study(**model):
    return {"prepare": {"name": "d", "source": "glas"}, "models": {"gap": model}, "maps": {"fast": ["cam"]}}


def test_a_study_takes_any_name_behind_the_prefix_of_timm():
    code = (
        f"import sys; from wsol.cli.config import load_config; load_config({study(backbone='timm:resnet50', output_stride=8)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    for name in ("timm:", "tim:resnet50", "resnet-50"):
        with pytest.raises(ConfigError, match=f"unknown backbone '{name}'; did you mean"):
            load_config(study(backbone=name))
    with pytest.raises(ConfigError, match="output_stride"):
        load_config(study(output_stride=4))


def test_the_list_of_backbones_says_how_timm_is_named():
    rows = {row["name"]: row for row in catalog("backbones")}
    assert "Any image model of timm" in rows["timm:NAME"]["summary"]
    assert {"efficientnet_lite2", "resnet50", "densenet121"} <= set(rows)
    assert all(row["paper"] for row in rows.values())
