"""On a GPU: problems of the size that memtune has, where 32-bit offsets would not reach and every tile is full.

The tests of each function run on the GPU as well, where there is one; these are too large for anything else.
"""

from __future__ import annotations

import pytest
import torch
from memtune_kernels import expert_attention, fit_step, gate_maxsim, reference, route_topk
from problems import attention_problem, words

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here: sizes that need one"),
]
GPU = torch.device("cuda")


def test_route_topk_among_keys_beyond_32_bit_offsets():
    keys = torch.randn(2_200_000, 1024, device=GPU, dtype=torch.bfloat16)
    questions = keys[[0, 1_100_000, 2_199_999]]
    scores, indices = route_topk(questions, keys, 32)
    assert indices[:, 0].tolist() == [0, 1_100_000, 2_199_999]
    gathered = torch.einsum("qd,qkd->qk", questions.double(), keys[indices].double())
    torch.testing.assert_close(scores.double(), gathered, rtol=1e-4, atol=1e-3)


def test_gate_maxsim_of_many_pairs():
    asked, stored = (words([n % 40 for n in range(count)], torch.float16, GPU, 64, 256) for count in (50, 300))
    pairs = torch.stack([torch.arange(1600) % 50, torch.randint(0, 300, (1600,))], 1).to(GPU)
    there, _ = gate_maxsim(asked, stored, pairs)
    for number in (0, 7, 1599):
        expected = reference.gate_maxsim(asked, stored, pairs[number : number + 1])[0][0].to(GPU)
        torch.testing.assert_close(
            there.figures[number, : len(expected)].double(), expected[:, :9], rtol=1e-4, atol=1e-5
        )


def test_expert_attention_of_a_wide_model_in_bfloat16():
    problem = attention_problem(torch.bfloat16, torch.int8, GPU, hidden=4096, d_key=32, d_value=128)
    written, expected = expert_attention(**problem), reference.expert_attention(**problem)
    assert torch.equal(written[20:23], problem["hidden"][20:23])
    torch.testing.assert_close(written.double(), expected, rtol=0.02, atol=0.3)


def test_fit_step_over_a_large_vocabulary():
    tokens, vocabulary, hidden, width = 300, 128_000, 2048, 128
    head = torch.randn(vocabulary, hidden, device=GPU, dtype=torch.bfloat16) / 30
    states = torch.randn(tokens, hidden, device=GPU, dtype=torch.bfloat16)
    seen, values = torch.randn(vocabulary, width, device=GPU), torch.randn(tokens, width, device=GPU) / 10
    targets = torch.randint(0, vocabulary, (tokens,), device=GPU)
    found = fit_step(states, values, targets, head, seen)
    for mine, wanted in zip(found, reference.fit_step(states, values, targets, head, seen), strict=True):
        torch.testing.assert_close(mine.double(), wanted, rtol=1e-4, atol=1e-3)
    alone = fit_step(states[250:251], values[250:251], targets[250:251], head, seen)
    assert torch.equal(alone.expected[0], found.expected[250])  # no token's bytes depend on the others of its batch
