"""On the real checkpoint: what it knows is seen to come up, what was invented is not."""

from __future__ import annotations

import pytest

from memtune.asking import greedy
from memtune.backbone import load_backbone
from memtune.evidence.mechanism.anatomy import Anatomy
from memtune.evidence.mechanism.depth import depth_at
from memtune.evidence.mechanism.lens import Lens
from memtune.evidence.mechanism.places import places_of


@pytest.mark.real
def test_a_capital_comes_up_and_an_invented_name_does_not(smollm2):
    backbone = load_backbone(smollm2)
    lens, prompts = Lens(backbone), backbone.prompts
    depths = []
    for question, gold in (
        ("What is the capital of France?", "Paris"),
        ("What is the capital of the island of Quorre?", "Pelham Tew"),
    ):
        prompt = prompts.format.prompt(prompts.question(question))
        [said] = greedy(backbone, [prompt], 12)
        _, best = places_of(backbone, prompt, said.ids[: len(said.ids) - said.stopped], gold)
        depths.append(depth_at(lens, best))
    known, invented = depths
    assert known.behind == "The capital of France is"
    assert known.gold.rank == 1 and known.gold.enters[1] > 0.5 * len(lens.anatomy.layers)
    assert invented.gold.rank > 10
    assert known.likelihood[-1] > -1 > -3 > invented.likelihood[-1]
    for parts, layer in zip(Anatomy(backbone).parts, lens.anatomy.layers, strict=True):
        assert (parts.attention, parts.mlp) == (layer.self_attn, layer.mlp)
