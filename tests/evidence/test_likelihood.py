"""One teacher-forced pass says what the model says token by token, with its memory and without."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS

from memtune.evidence.likelihood import token_log_probabilities, token_logits


@pytest.fixture(scope="module")
def rendered(backbone):
    prompts = backbone.prompts
    questions = [prompts.format.prompt(prompts.question(question)) for _, question, _ in FACTS]
    return questions, [prompts.answer(answer) for _, _, answer in FACTS]


@torch.inference_mode()
def test_rows_of_many_lengths_say_what_each_says_alone(backbone, rendered):
    for i, logits in token_logits(backbone, *rendered):
        prompt, answer = (part[i] for part in rendered)
        alone = backbone.model(input_ids=torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
        torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-4)


def test_the_memory_takes_part_while_it_is_attached(backbone, rendered, attachment):
    known = token_log_probabilities(backbone, *rendered)
    assert all(float(chances.min()) > -0.7 for chances in known)
    attachment.enabled = False
    assert all(float(chances.min()) < -0.7 for chances in token_log_probabilities(backbone, *rendered))


def test_log_probabilities_are_those_of_the_answers_tokens(backbone, rendered):
    for chances, answer in zip(token_log_probabilities(backbone, *rendered), rendered[1], strict=True):
        assert chances.shape == (len(answer),)
        assert float(chances.max()) <= 0
