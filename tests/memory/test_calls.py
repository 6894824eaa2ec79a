"""A call of generate() tells its passes where its prompt ends: those of its own model, and nobody else."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

from memtune.memory.calls import call_of, generating, note_mask

OWNER, OTHER = object(), object()
IDS = torch.zeros(2, 4, dtype=torch.long)


@pytest.mark.parametrize(
    ("inputs", "keywords"),
    [
        (IDS, {}),
        (None, {"input_ids": IDS}),
        (IDS, {"attention_mask": torch.ones(2, 4)}),
        (IDS[:, 3:], {"attention_mask": torch.ones(2, 4)}),
    ],
    ids=["inputs", "input_ids", "a mask", "the new ids of a cache and the whole mask"],
)
def test_the_prompt_is_as_long_as_its_mask_or_its_ids(inputs, keywords):
    with generating(OWNER, inputs, keywords):
        assert call_of(OWNER).prompt_end == 4
    assert call_of(OWNER) is None


@pytest.mark.parametrize(
    ("inputs", "keywords"),
    [(None, {}), (IDS, {"generation_config": SimpleNamespace(is_assistant=True)})],
    ids=["embeddings", "an assistant"],
)
def test_what_is_not_known_is_not_said(inputs, keywords):
    with generating(OWNER, inputs, keywords):
        assert call_of(OWNER) is None


def test_a_call_is_that_of_its_model_in_its_thread():
    seen = []
    with generating(OWNER, IDS, {}):
        thread = threading.Thread(target=lambda: seen.append(call_of(OWNER)))
        thread.start()
        thread.join()
        assert (call_of(OTHER), *seen) == (None, None)


def test_a_call_that_fails_is_over():
    with pytest.raises(ValueError, match="no"), generating(OWNER, IDS, {}):
        raise ValueError("no")
    assert call_of(OWNER) is None


def test_the_mask_is_that_of_the_next_pass_of_its_model():
    mask = torch.ones(2, 5)
    note_mask(OWNER, mask)
    with generating(OWNER, IDS, {}):
        assert call_of(OWNER).mask is None
        note_mask(OTHER, torch.zeros(2, 5))
        note_mask(OWNER, mask)
        assert call_of(OWNER).mask is mask
