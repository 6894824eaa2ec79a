"""Linear layers called within are computed by oneDNN, and by nothing else than torch would where that cannot be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from memtune.memory.products import by_onednn

onednn = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="a torch without oneDNN")


@pytest.fixture
def computed(monkeypatch):
    """How many products oneDNN was asked for."""
    calls = []
    real = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *args: calls.append(args) or real(*args))
    return calls


@onednn
@pytest.mark.parametrize("shape", [(5, 32), (2, 3, 32), (32,), (2, 0, 32)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_same_product(shape, bias):
    layer, states = nn.Linear(32, 48, bias=bias), torch.randn(shape)
    with torch.inference_mode():
        expected = layer(states)
        with by_onednn():
            torch.testing.assert_close(layer(states), expected, rtol=1e-5, atol=1e-5)


@onednn
def test_a_layer_of_a_model_goes_there(computed):
    layer = nn.Linear(8, 8)
    with torch.inference_mode(), by_onednn():
        layer(torch.randn(3, 8))
        F.linear(torch.randn(3, 8), layer.weight)
    assert len(computed) == 2


@onednn
def test_what_needs_a_gradient_or_another_dtype_does_not(computed):
    layer = nn.Linear(8, 8)
    with by_onednn():
        layer(torch.randn(3, 8)).sum().backward()
    with torch.inference_mode(), by_onednn():
        layer.bfloat16()(torch.randn(3, 8, dtype=torch.bfloat16))
    with torch.inference_mode(), torch.autocast("cpu"), by_onednn():
        assert nn.Linear(8, 8)(torch.randn(3, 8)).dtype == torch.bfloat16
    assert layer.weight.grad is not None and not computed


@onednn
def test_outside_of_it_nothing_is_changed(computed):
    with torch.inference_mode():
        with by_onednn():
            pass
        nn.Linear(8, 8)(torch.randn(3, 8))
    assert not computed
