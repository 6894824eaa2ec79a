"""``expert_attention``: the write of the memory, and none where no fact fired."""

from __future__ import annotations

import pytest
import torch
from memtune_kernels import expert_attention, reference
from problems import attention_problem

# The interpreter rounds to bfloat16 in its own way: one unit in the last place, of numbers below 16.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.13, torch.float16: 0.01}
NULL = slice(20, 23)  # the positions of the sequence without experts


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16, torch.int8], ids=str)
def test_writes_the_mixture_of_the_runs_experts_from_rows_of_any_dtype(device, stored):
    problem = attention_problem(torch.float32, stored, device)
    torch.testing.assert_close(
        expert_attention(**problem).double(), reference.expert_attention(**problem), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_null_route_hands_the_states_back_bit_for_bit(device, dtype):
    problem = attention_problem(dtype, torch.float32, device)
    written = expert_attention(**problem)
    assert written.dtype is dtype
    # Bits, not numbers: a state of -0.0 is there, which adding nothing would turn into 0.0.
    assert torch.equal(written[NULL].view(torch.uint8), problem["hidden"][NULL].view(torch.uint8))
    expected = reference.expert_attention(**problem)
    torch.testing.assert_close(written.double(), expected, rtol=TOLERANCE[dtype] / 8, atol=TOLERANCE[dtype])


def test_where_no_sequence_fires_nothing_is_written(device):
    problem = attention_problem(torch.float32, torch.float32, device)
    problem["runs"] = torch.zeros_like(problem["runs"])
    assert torch.equal(expert_attention(**problem), problem["hidden"])


def test_positions_of_no_sequence_are_left_alone(device):
    problem = attention_problem(torch.float32, torch.float32, device)
    problem["offsets"], problem["runs"] = problem["offsets"][1:3], problem["runs"][1:2]
    written = expert_attention(**problem)
    changed = (written != problem["hidden"]).any(1)
    assert changed.tolist() == [1 <= position < 20 for position in range(27)]


def test_a_sharp_softmax_picks_the_expert_of_the_step(device):
    problem = attention_problem(torch.float32, torch.float32, device) | {"beta": 1000.0, "slope": 5.0}
    expected = problem["hidden"][0] + problem["up"] @ problem["values"][5 + 7]
    torch.testing.assert_close(expert_attention(**problem)[0], expected, rtol=1e-5, atol=1e-5)


def test_int8_keys_count_by_their_direction_and_values_by_their_scale(device):
    problem = attention_problem(torch.float32, torch.int8, device)
    scales = problem.pop("value_scales")
    wide = {"keys": problem["keys"].float() * 0.03, "values": problem["values"].float() * scales[:, None]}
    torch.testing.assert_close(
        expert_attention(**problem, value_scales=scales), expert_attention(**problem | wide), rtol=1e-5, atol=1e-5
    )


def test_refuses_rows_that_do_not_fit(device):
    problem = attention_problem(torch.float32, torch.float32, device)
    with pytest.raises(ValueError, match=r"up is \(50, 19\), expected \(50, 20\)"):
        expert_attention(**problem | {"up": problem["up"][:, :19]})
    with pytest.raises(ValueError, match="no rows of experts"):
        expert_attention(**problem | {"keys": problem["keys"].long()})
