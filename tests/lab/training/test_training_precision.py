"""In what a training computes: as asked, or as suits the device."""

import json

import pytest
import torch
from test_training import trainer


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("asked", [None, True, False])
def test_training_computes_as_asked_or_as_suits_the_device(tmp_path, monkeypatch, able, asked):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    run = trainer(tmp_path, epochs=1, bf16=asked)
    seen = []
    run.model.out.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run.run(progress=False)
    chosen = able if asked is None else asked
    assert seen[0] is (torch.bfloat16 if chosen else torch.float32)
    log = json.loads((tmp_path / "log.json").read_text())
    assert (log["bf16"], log["device"]) == (chosen, "cpu")
    assert all(p.dtype is torch.float32 for p in run.model.parameters())


@pytest.mark.parametrize("began", [True, False])
def test_a_resumed_training_goes_on_in_what_it_began_in(tmp_path, monkeypatch, began):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": began})
    trainer(tmp_path, epochs=1).run(progress=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not began})
    for asked, expected in ((None, began), (not began, not began)):
        run = trainer(tmp_path, epochs=1, bf16=asked)
        run.run(progress=False)
        assert run.bf16 is expected
