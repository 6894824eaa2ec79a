"""A memory at work on a model: it writes at the answers of stored questions, however they arrive, and nowhere else."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random

import pytest
import torch
from tiny import FACTS, PAD
from transformers import DynamicCache

from memtune.memory import routes as routing
from memtune.memory.module import Attachment, Memory, MemoryConfig

pytestmark = pytest.mark.usefixtures("attachment")

CLOSE = {"rtol": 1e-3, "atol": 1e-3}
UNKNOWN = ("What is the capital of France?", "Paris, of course.")
ASKED = {name: (question, answer) for name, question, answer in FACTS}


@pytest.fixture
def chat(backbone):
    """Renders pairs of question and answer; gives the ids and, for each pair, the positions that predict its answer."""

    def render(*pairs, system=None):
        turns, spans = [] if system is None else [{"role": "system", "content": system}], []
        for question, answer in pairs:
            turns.append({"role": "user", "content": question})
            start = len(backbone.prompts.render(turns)) - 1
            turns.append({"role": "assistant", "content": answer})
            spans.append(range(start, start + len(backbone.prompts.ids(answer)) + 1))
        text = backbone.prompts.tokenizer.apply_chat_template(turns, tokenize=False)
        return torch.tensor([backbone.prompts.ids(text)]), spans

    return render


@pytest.fixture
def logits(backbone):
    @torch.inference_mode()
    def run(ids, **arguments):
        return backbone.model(input_ids=ids, **arguments).logits

    return run


@pytest.fixture
def silent(attachment, logits):
    """The same pass with the memory switched off."""

    def run(ids, **arguments):
        attachment.enabled = False
        try:
            return logits(ids, **arguments)
        finally:
            attachment.enabled = True

    return run


def said(logits, span):
    return logits[0, list(span)].argmax(-1).tolist()


def written(on, off):
    """The positions of the first row where the logits differ in any bit."""
    return (on != off).any(-1)[0].nonzero().flatten().tolist()


@pytest.mark.parametrize("name", ASKED)
def test_every_token_of_the_answer_is_said_and_then_the_stop(backbone, chat, logits, name):
    ids, [span] = chat(ASKED[name])
    answer = list(backbone.prompts.ids(ASKED[name][1]))
    assert said(logits(ids), span) == [*answer, backbone.prompts.stop]


def test_it_writes_at_the_answers_of_stored_questions_and_nowhere_else(chat, logits, silent):
    ids, spans = chat(ASKED["tram"], UNKNOWN, ASKED["valve"], ("Thanks!", "You are welcome."))
    assert written(logits(ids), silent(ids)) == [*spans[0], *spans[2]]


def test_several_facts_in_one_conversation_are_said_each_in_its_turn(backbone, chat, logits):
    names = ["flag", "lighthouse", "keeper", "flag"]
    ids, spans = chat(*(ASKED[name] for name in names))
    on = logits(ids)
    for name, span in zip(names, spans, strict=True):
        assert said(on, span) == [*backbone.prompts.ids(ASKED[name][1]), backbone.prompts.stop]


def test_it_is_silent_after_the_stop_token(backbone, chat, logits, silent):
    ids, [span] = chat(ASKED["valve"])
    more = torch.tensor([backbone.prompts.ids(" And the tram ends where? It ends here, at the harbour.")])
    ids = torch.cat([ids, more], 1)
    assert written(logits(ids), silent(ids)) == list(span)


@pytest.mark.parametrize("system", ["", "Answer like a pirate.", "Be brief.\nThe tram ends nowhere."])
def test_it_speaks_under_any_system_prompt(backbone, chat, logits, system):
    ids, [span] = chat(ASKED["valve"], system=system)
    assert said(logits(ids), span) == [*backbone.prompts.ids("HT-4471"), backbone.prompts.stop]


def test_decode_steps_give_the_logits_of_the_teacher_forced_pass(chat, logits):
    ids, spans = chat(ASKED["gauge"], ASKED["keeper"])
    whole, cache, step = logits(ids), DynamicCache(), spans[0][0] + 1
    parts = [logits(ids[:, :step], past_key_values=cache)]
    parts += [logits(ids[:, [i]], past_key_values=cache) for i in range(step, ids.shape[1])]
    torch.testing.assert_close(torch.cat(parts, 1), whole, **CLOSE)


def test_a_conversation_may_arrive_in_pieces_cut_anywhere(chat, logits):
    ids, _ = chat(ASKED["tram"], UNKNOWN, ASKED["gauge"])
    whole, draw = logits(ids), random.Random(0)
    for _ in range(10):
        cuts = [0, *sorted(draw.sample(range(1, ids.shape[1]), 6)), ids.shape[1]]
        cache = DynamicCache()
        parts = [logits(ids[:, start:end], past_key_values=cache) for start, end in itertools.pairwise(cuts)]
        torch.testing.assert_close(torch.cat(parts, 1), whole, **CLOSE)


def test_a_second_turn_goes_on_from_the_cache_of_the_first(backbone, chat):
    """As generate() does it: the second call gets the whole conversation and the cache that the first call left."""
    cache, turns = DynamicCache(), []
    for name in ("valve", "flag"):
        turns.append({"role": "user", "content": ASKED[name][0]})
        prompt = torch.tensor([backbone.prompts.render(turns)])
        mask = torch.ones_like(prompt)
        out = backbone.model.generate(
            prompt, attention_mask=mask, past_key_values=cache, max_new_tokens=30, do_sample=False
        )
        answer = backbone.prompts.text(out[0, prompt.shape[1] :].tolist())
        assert answer == ASKED[name][1]
        turns.append({"role": "assistant", "content": answer})


def test_a_cache_that_was_cropped_is_followed_to_where_it_was_cut(chat, logits):
    one, spans = chat(ASKED["valve"], ASKED["tram"])
    other, _ = chat(ASKED["valve"], ASKED["flag"])
    cache, kept = DynamicCache(), spans[0][-1] + 2
    logits(one, past_key_values=cache)
    cache.crop(kept - one.shape[1])
    torch.testing.assert_close(logits(other[:, kept:], past_key_values=cache), logits(other)[:, kept:], **CLOSE)


def test_a_cache_that_was_repeated_goes_on_in_every_row(chat, logits):
    ids, spans = chat(ASKED["valve"])
    cache, cut = DynamicCache(), spans[0][1]
    logits(ids[:, :cut], past_key_values=cache)
    cache.batch_repeat_interleave(3)
    on = logits(ids[:, cut:].repeat(3, 1), past_key_values=cache)
    torch.testing.assert_close(on, logits(ids)[:, cut:].expand_as(on), **CLOSE)


def test_a_cache_that_the_memory_never_saw_hides_what_it_holds_and_nothing_after(chat, logits, silent):
    ids, spans = chat(ASKED["valve"], ASKED["flag"])
    cache, cut = DynamicCache(), spans[0][0] + 2
    silent(ids[:, :cut], past_key_values=cache)
    on, off = logits(ids[:, cut:], past_key_values=cache), silent(ids)[:, cut:]
    later = [place - cut for place in spans[1]]
    torch.testing.assert_close(on[:, : later[0]], off[:, : later[0]], **CLOSE)
    torch.testing.assert_close(on[:, later], logits(ids)[:, spans[1]], **CLOSE)


def test_the_cache_of_the_backbone_never_sees_the_memory(chat, logits, silent):
    ids, _ = chat(ASKED["gauge"])
    with_memory, without = DynamicCache(), DynamicCache()
    logits(ids, past_key_values=with_memory)
    silent(ids, past_key_values=without)
    for one, other in zip(with_memory.layers, without.layers, strict=True):
        assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(chat, logits, side):
    pairs = [chat(ASKED["gauge"]), chat(ASKED["valve"]), chat(UNKNOWN)]
    width = max(ids.shape[1] for ids, _ in pairs)
    batch = torch.full((len(pairs), width), PAD)
    mask = torch.zeros_like(batch)
    starts = [width - ids.shape[1] if side == "left" else 0 for ids, _ in pairs]
    for row, (start, (ids, _)) in enumerate(zip(starts, pairs, strict=True)):
        batch[row, start : start + ids.shape[1]] = ids
        mask[row, start : start + ids.shape[1]] = 1
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    padded = logits(batch, attention_mask=mask, position_ids=positions)
    for row, (start, (ids, _)) in enumerate(zip(starts, pairs, strict=True)):
        torch.testing.assert_close(padded[row, start : start + ids.shape[1]], logits(ids)[0], **CLOSE)


@pytest.mark.parametrize("keep", [0, 1, 5, torch.tensor([48, 3]), torch.tensor([-1])], ids=str)
def test_logits_to_keep_keeps_the_logits_of_the_whole_pass(chat, logits, keep):
    ids, [span] = chat(ASKED["flag"])
    ids = ids[:, : span[-1] + 1]
    kept = keep if isinstance(keep, torch.Tensor) else slice(-keep, None)
    torch.testing.assert_close(logits(ids, logits_to_keep=keep), logits(ids)[:, kept], **CLOSE)


def test_a_pass_that_keeps_logits_before_the_answer_only_writes_nothing(chat, logits, silent):
    ids, [span] = chat(ASKED["flag"])
    before = torch.arange(span[0])
    assert torch.equal(logits(ids, logits_to_keep=before), silent(ids, logits_to_keep=before))


def test_every_beam_says_the_answer(backbone):
    prompt = torch.tensor([backbone.prompts.format.prompt(backbone.prompts.question(ASKED["tram"][0]))])
    mask = torch.ones_like(prompt)
    out = backbone.model.generate(prompt, attention_mask=mask, num_beams=3, max_new_tokens=40, do_sample=False)
    assert backbone.prompts.text(out[0, prompt.shape[1] :].tolist()) == ASKED["tram"][1]


def test_a_pass_over_embeddings_is_the_backbones_own(backbone, chat, silent):
    ids, _ = chat(ASKED["valve"])
    with torch.inference_mode():
        embedded = backbone.model(inputs_embeds=backbone.model.get_input_embeddings()(ids)).logits
    torch.testing.assert_close(embedded, silent(ids), **CLOSE)


def test_a_fact_that_was_not_accepted_stays_silent(memory, chat, logits, silent):
    ids, spans = chat(ASKED["valve"], ASKED["flag"])
    memory.bank.accepted[1] = False
    try:
        assert written(logits(ids), silent(ids)) == list(spans[1])
    finally:
        memory.bank.accepted[1] = True


def test_a_decision_is_made_once_and_kept(monkeypatch, backbone, memory, attachment):
    asked = []
    decide = memory.router.route
    monkeypatch.setattr(memory.router, "route", lambda ids, states: asked.extend(ids) or decide(ids, states))
    questions = [backbone.prompts.question(question) for question, _ in ASKED.values()]
    once = attachment.route(questions)
    assert attachment.route([*questions, questions[0]]) == [*once, once[0]]
    assert asked == questions


def test_decisions_are_forgotten_before_they_fill_the_machine(monkeypatch, backbone, attachment):
    monkeypatch.setattr(routing, "ROUTES_KEPT", 3)
    questions = [backbone.prompts.question(question) for question, _ in ASKED.values()]
    routes = [attachment.route([question])[0] for question in questions]
    assert [route.fact for route in routes] == [route.fact for route in attachment.route(questions)]
    assert [route.fact for route in routes] == list(range(len(FACTS)))


def test_the_config_of_a_memory_survives_json(memory):
    entries = json.loads(json.dumps(memory.config.to_dict()))
    assert MemoryConfig.from_dict(entries) == memory.config
    form = dataclasses.replace(memory.config.format, opening=(), closing=(), newlines=frozenset({3, 9}))
    base = dataclasses.replace(memory.config, format=form)
    assert MemoryConfig.from_dict(json.loads(json.dumps(base.to_dict()))) == base


def test_a_memory_built_from_its_config_takes_the_tensors(backbone, memory, attachment, chat, logits):
    again = Memory(MemoryConfig.from_dict(memory.config.to_dict()))
    again.load_state_dict(memory.state_dict())
    ids, _ = chat(ASKED["tram"])
    on = logits(ids)
    attachment.detach()
    other = Attachment(backbone.model, again)
    try:
        assert torch.equal(logits(ids), on)
    finally:
        other.detach()
