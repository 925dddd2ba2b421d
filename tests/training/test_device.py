from __future__ import annotations

import pytest
import torch

from wsol.training import bf16_pays, choose_device


@pytest.mark.parametrize("instruction", ["avx512_bf16", "amx_tile", "arm_bf16"])
def test_bf16_pays_on_a_cpu_iff_it_has_an_instruction_for_it(monkeypatch, instruction):
    for name in ("avx512_bf16", "amx_tile", "arm_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda: False, raising=False)
    assert not bf16_pays(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, f"_is_{instruction}_supported", lambda: True, raising=False)
    assert bf16_pays(torch.device("cpu"))


def test_devices_are_named_and_checked():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        choose_device("gpu")
