"""The memory at the logits says what the bundle says, to whoever has prompts and logits and no hidden state."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS, AtLogits, save_kind

from memtune.backbone import load_backbone
from memtune.errors import ModelError
from memtune.logits import LogitMemory, StoredAnswer, early_backbone
from memtune.memory.states import StateReader

TRAM, VALVE = FACTS[2], FACTS[1]
UNKNOWN = "What is the capital of France?"


@pytest.fixture(scope="module")
def at_logits(bundle):
    return LogitMemory.load(str(bundle))


@pytest.fixture
def plain(backbone):
    """The backbone alone, as it generates without and with the memory at its logits."""
    return backbone.model


@pytest.fixture
def prompt(backbone):
    """The ids of a conversation that waits for an answer."""

    def ids(*turns):
        roles = ("user", "assistant")
        return backbone.prompts.render([{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)])

    return ids


def test_a_plain_model_says_the_facts_with_the_memory_at_its_logits(answer, plain, at_logits):
    asked = [question for _, question, _ in FACTS]
    assert answer(plain, *asked, logits_processor=[AtLogits(at_logits)]) == [said for _, _, said in FACTS]


def test_what_the_memory_does_not_know_keeps_every_bit_of_its_logits(answer, plain, at_logits):
    """Beside a fact in the same batch."""
    [alone] = answer(plain, UNKNOWN)
    memory = AtLogits(at_logits)
    assert answer(plain, TRAM[1], UNKNOWN, logits_processor=[memory]) == [TRAM[2], alone]
    assert memory.untouched == {1}


def test_the_last_turn_of_a_conversation_is_answered(prompt, at_logits):
    first = at_logits.answer_to(prompt(VALVE[1]))
    assert at_logits.answer_to(prompt(TRAM[1], TRAM[2], VALVE[1])).first == first.first
    assert at_logits.answer_to(prompt(TRAM[1], TRAM[2], UNKNOWN)) is None


def test_a_prompt_that_ends_in_an_answer_goes_on_in_it(prompt, at_logits):
    whole = prompt(TRAM[1])
    stored = at_logits.answer_to(whole)
    part = at_logits.answer_to((*whole, 5, 6, 7))
    assert part == stored and stored.start == len(whole)
    assert part.expert(len(whole) + 3) == stored.first + 3


def test_an_open_user_turn_is_not_answered(backbone, prompt, at_logits):
    opening = backbone.prompts.format.opening
    assert at_logits.answer_to((*prompt(TRAM[1]), *opening)) is None


def test_behind_the_last_expert_nothing_is_said(prompt, at_logits, memory):
    stored = at_logits.answer_to(prompt(TRAM[1]))
    assert stored.experts == memory.bank.experts_of(2)
    assert stored.expert(stored.start + stored.experts - 1) == stored.first + stored.experts - 1
    assert stored.expert(stored.start + stored.experts) is None


def test_a_base_model_is_asked_in_its_last_paragraph(tmp_path, base_checkpoint, facts_file):
    from memtune.config import Config
    from memtune.export import export
    from memtune.ingest import ingest
    from memtune.tune import tune

    project, bundle = tmp_path / "project", tmp_path / "bundle"
    config = Config(model=base_checkpoint)
    ingest(facts_file, project, config)
    assert tune(project, config).met and export(project, bundle).met
    backbone = load_backbone(base_checkpoint)
    stored = LogitMemory.load(str(bundle)).answer_to(backbone.prompts.format.prompt(backbone.prompts.question(TRAM[1])))
    assert stored is not None and stored.experts > 1


def test_a_forbidden_token_stays_forbidden(at_logits, prompt):
    stored = at_logits.answer_to(prompt(TRAM[1]))
    logits = torch.zeros(2, len(at_logits._added))
    logits[0, 7] = float("-inf")
    at_logits.write(logits, [0], [stored.expert(stored.start)])
    assert logits[0, 7].isneginf() and logits[0].isfinite().sum() == logits.shape[1] - 1
    assert not logits[0].eq(0).any() and logits[1].eq(0).all()


@pytest.mark.parametrize("kind", ["gemma2", "granite", "llama"])
def test_it_adds_what_the_head_makes_of_a_value_row(kind, tmp_path, memory):
    """Capped logits are uncapped for it, scaled ones scaled."""
    entries = {"hidden_size": 192, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    entries |= {"num_key_value_heads": 2, "head_dim": 48, "initializer_range": 0.1}
    own = {"granite": {"logits_scaling": 8.0}, "gemma2": {"final_logit_softcapping": 4.0}}.get(kind, {})
    location = save_kind(tmp_path / kind, kind, **entries | own)
    model = load_backbone(location).model
    at_logits = LogitMemory(memory, early_backbone(location, max(memory.config.taps)))
    value = memory.bank.values[:2].float() * memory.bank.scales[:2, None]
    added = value @ memory.projections.up.T
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = model(input_ids=ids).logits[0, :2].clone()
        head = model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, args: (args[0] + torch.cat([added, added[:1]])[None],))
        expected = model(input_ids=ids).logits[0, :2]
        hook.remove()
    at_logits.write(before, [0, 1], [0, 1])
    torch.testing.assert_close(before, expected, rtol=1e-3, atol=1e-3)


def test_the_first_layers_alone_read_as_the_whole_model_does(backbone, checkpoint):
    rows = [backbone.prompts.question(TRAM[1]), backbone.prompts.question(VALVE[1])]
    prefix, taps = backbone.prompts.format.prefix, (1, 2)
    early = early_backbone(checkpoint, 2)
    assert early.config.num_hidden_layers == 2
    for few, all_ in zip(
        StateReader(early, prefix, taps).early(rows), StateReader(backbone.model, prefix, taps).early(rows), strict=True
    ):
        assert torch.equal(few, all_)


def test_a_checkpoint_without_a_memory_is_refused(checkpoint):
    with pytest.raises(ModelError, match="holds no memory"):
        LogitMemory.load(checkpoint)


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match="holds no memory"):
        LogitMemory.load(str(tmp_path / "nothing"))


def test_experts_are_counted_from_where_the_answer_starts():
    assert [StoredAnswer(10, 3, 20).expert(length) for length in (20, 22, 23)] == [10, 12, None]
