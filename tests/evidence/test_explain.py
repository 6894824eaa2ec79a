"""An explanation of a stored question, of an unknown one and of a wrong one, on a model whose memory is known."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
import torch
from tiny import FACTS

from memtune.errors import DataError, ProjectError
from memtune.evidence.likelihood import token_log_probabilities
from memtune.evidence.mechanism.explain import explain
from memtune.evidence.mechanism.explained_page import rank_plot, write_page
from memtune.evidence.mechanism.lens import Lens
from memtune.evidence.mechanism.trace import Tracing
from memtune.plots import standalone
from memtune.probe import probe

NAME, QUESTION, ANSWER = FACTS[0]
UNKNOWN = "What is the capital of France?"


@pytest.fixture(scope="module")
def stored(tuned, backbone):
    return explain(QUESTION, tuned, backbone=backbone, tracing=Tracing(noises=2))


@pytest.fixture(scope="module")
def unknown(tuned, backbone):
    return explain(UNKNOWN, tuned, backbone=backbone)


def test_it_begins_with_what_probe_says(stored, tuned, backbone):
    [asked] = probe([QUESTION], tuned, backbone=backbone)
    assert stored.probed == asked


def test_the_gold_answer_is_that_of_the_fact_that_fired(stored):
    assert (stored.gold.answer, stored.gold.source) == (ANSWER, f"fact {NAME}, which fired")
    assert stored.start.gold.token and ANSWER.startswith(stored.start.gold.token.strip())


def test_a_named_answer_goes_before_that_of_the_fact(tuned, backbone):
    found = explain(QUESTION, tuned, answer="HT-4471", backbone=backbone)
    assert (found.gold.answer, found.gold.source) == ("HT-4471", "as given")
    assert found.memory.token.strip() and ANSWER.startswith(
        found.memory.token.strip()
    )  # what the memory writes is its own


def test_a_fact_that_does_not_fire_is_found_by_its_question(done, backbone, monkeypatch):
    monkeypatch.setattr("memtune.memory.module.Memory.fires", lambda *_: False)
    found = explain(QUESTION.upper(), done, backbone=backbone)
    assert (found.gold.answer, found.memory) == (ANSWER, None)
    assert found.gold.source == f"fact {NAME}, which did not fire"


def test_without_any_answer_only_what_is_said_is_shown(unknown):
    assert unknown.gold is None and unknown.best is None and unknown.alone is None and unknown.memory is None
    assert unknown.start.gold is None and unknown.start.likelihood == () and unknown.start.said.rank == 1
    assert unknown.verdict == ("No gold answer is known, so this shows only how the backbone comes to what it says.",)


def test_there_is_a_figure_for_the_embedding_and_for_every_layer(stored, backbone):
    layers = len(backbone.states.layers)
    assert stored.layers == layers
    for depth in (stored.start, stored.best or stored.start):
        assert len(depth.entropy) == len(depth.likelihood) == len(depth.gold.ranks) == layers + 1
        assert depth.said.rank == 1
        assert len(depth.above) == min(3, depth.gold.rank - 1)


def test_the_likelihood_of_the_last_layer_is_that_of_the_model(stored, backbone):
    prompts = backbone.prompts
    prompt = prompts.format.prompt(prompts.question(QUESTION))
    [chances] = token_log_probabilities(backbone, [prompt], [prompts.answer(ANSWER)[:-1]])
    assert stored.start.likelihood[-1] == pytest.approx(float(chances.mean()), abs=1e-4)


def test_the_memory_acts_behind_the_last_layer_alone(stored, backbone, attachment):
    prompts = backbone.prompts
    prompt, answer = prompts.format.prompt(prompts.question(QUESTION)), prompts.answer(ANSWER)
    [on] = token_log_probabilities(backbone, [prompt], [answer])
    attachment.enabled = False
    [off] = token_log_probabilities(backbone, [prompt], [answer])
    memory = stored.memory
    assert memory.untouched
    assert (memory.rank_before, memory.rank_after) == (stored.start.gold.rank, 1)
    assert memory.probability_before == pytest.approx(stored.start.gold.probability, rel=1e-3)
    assert memory.likelihood_before == pytest.approx(float(off.mean()), abs=1e-4)
    assert memory.likelihood_after == pytest.approx(float(on.mean()), abs=1e-4)
    assert memory.probability_after == pytest.approx(float(on[0].exp()), abs=1e-5)
    assert memory.probability_after > 0.5 and memory.share > 0


def test_a_change_inside_the_layers_would_be_seen(tuned, backbone, monkeypatch):
    """A memory that is not at the head alone: a hook on a layer, while the memory is on."""
    from memtune.memory.module import Attachment

    layer, on = backbone.states.layers[1], []
    original = Attachment._follow

    def follow(self, *call):
        on[:] = [self.enabled]
        return original(self, *call)

    monkeypatch.setattr(Attachment, "_follow", follow)
    hook = layer.register_forward_hook(lambda _m, _a, out: out + 1e-3 if on == [True] else None)
    try:
        found = explain(QUESTION, tuned, backbone=backbone)
    finally:
        hook.remove()
    assert not found.memory.untouched
    assert any("is NOT the same" in sentence for sentence in found.verdict)


def test_the_subject_alone_is_asked_too(stored, backbone):
    assert stored.subject == "Kirkby Strand"
    prompts, lens = backbone.prompts, Lens(backbone)
    row = prompts.format.prompt(prompts.question("Kirkby Strand"))
    seen = lens.read(row, [len(row) - 1], [[prompts.answer(ANSWER)[0]]])
    assert stored.alone.ranks == tuple(seen.ranks[:, 0, 0].tolist())


def test_the_trace_is_of_the_subject_and_what_is_said_over_the_gold_token(stored):
    traced, place = stored.trace, stored.best or stored.start
    assert traced.subject == "Kirkby Strand"
    assert (traced.said, traced.gold) == (place.said.token, place.gold.token)
    assert traced.used == 2 and stored.trace_seconds > 0


def test_the_same_question_is_explained_the_same_way(stored, tuned, backbone):
    again = explain(QUESTION, tuned, backbone=backbone, tracing=Tracing(noises=2))
    for field in ("probed", "gold", "start", "best", "alone", "memory", "trace", "verdict"):
        assert getattr(again, field) == getattr(stored, field)


def test_the_model_is_left_as_it_was(tuned, backbone):
    ids = torch.tensor([backbone.prompts.format.prompt(backbone.prompts.question(QUESTION))])
    with torch.inference_mode():
        before = backbone.model(input_ids=ids).logits
        explain(QUESTION, tuned, backbone=backbone)
        assert torch.equal(backbone.model(input_ids=ids).logits, before)


def test_an_empty_answer_and_a_question_without_a_subject_are_refused(tuned, backbone):
    with pytest.raises(DataError, match="the gold answer is empty"):
        explain(UNKNOWN, tuned, answer="  ", backbone=backbone)
    with pytest.raises(DataError, match="names nothing that could be corrupted"):
        explain("?!", tuned, tracing=Tracing(), backbone=backbone)


def test_facts_that_nobody_tuned_cannot_be_explained(ingested, backbone):
    with pytest.raises(ProjectError) as caught:
        explain(QUESTION, ingested, backbone=backbone)
    assert caught.value.hint.startswith("run first: memtune tune")


def test_the_page_is_whole_and_every_text_on_it_is_text(tuned, backbone, tmp_path):
    found = explain(QUESTION, tuned, answer="<b>&amp;", tracing=Tracing(noises=1, stride=4), backbone=backbone)
    write_page(found, tmp_path / "why.html")
    page = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert "<b>" not in page and "&lt;b&gt;&amp;amp;" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    for title in ("Layer by layer", "The memory, off and on", "Trace", "Attention", "MLP"):
        assert f">{title}<" in page
    assert page.count("<svg") == 4


def test_a_page_without_memory_and_trace_has_no_such_parts(unknown, tmp_path):
    write_page(unknown, tmp_path / "why.html")
    page = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert "The memory, off and on" not in page and "<h2>Trace" not in page and page.count("<svg") == 2


def test_a_plot_stands_by_itself(stored):
    alone = ET.fromstring(standalone(rank_plot(stored)))
    assert alone.tag == "{http://www.w3.org/2000/svg}svg"
    assert ".right{" in alone.find("{http://www.w3.org/2000/svg}style").text
