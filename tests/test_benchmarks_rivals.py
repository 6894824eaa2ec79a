"""What memtune is measured against does what it says: otherwise the comparison would be with a straw man."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny import FACTS

from memtune.asking import greedy
from memtune.backbone import load_backbone
from memtune.evidence.training import Goal, batches_of, fact_losses
from memtune.facts import Fact

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import report  # noqa: E402
from common import peak_bytes, without_lists  # noqa: E402
from one_rival import recall, unchanged  # noqa: E402
from plot import plot  # noqa: E402
from rivals import METHODS  # noqa: E402
from rivals.base import Reply, plain_prompts  # noqa: E402
from rivals.grace import JUST_LESS, Codebook  # noqa: E402
from rivals.grace import teach as teach_grace  # noqa: E402
from rivals.locft import late_layer  # noqa: E402
from rivals.rag import quoted  # noqa: E402
from rivals.rag import teach as teach_notes  # noqa: E402
from rivals.training import Upper  # noqa: E402

TAUGHT = [Fact(name, question, answer) for name, question, answer in FACTS]
OTHER = ["Who keeps the bees at Norwick?", "What colour is the sky over Quell?"]
LONGEST = 40


@pytest.fixture
def own(checkpoint):
    """A backbone of its own: methods change the model that they are given."""
    return load_backbone(checkpoint)


class TestTraining:
    def test_the_loss_covers_the_answer_with_its_stop_token_and_nothing_else(self, backbone):
        for batch in batches_of(backbone, TAUGHT, size=4):
            for row, number in enumerate(batch.facts):
                encoded = backbone.prompts.fact(TAUGHT[number])
                prompt = backbone.prompts.format.prompt(encoded.question)
                mine = batch.rows == row
                assert batch.targets[mine].tolist() == list(encoded.answer)
                # The state at p predicts token p + 1: the first comes from the prompt's last token.
                first = len(prompt) - 1
                assert batch.places[mine].tolist() == list(range(first, first + len(encoded.answer)))
                assert int(batch.first_places[row]) == first

    @torch.inference_mode()
    def test_the_loss_of_a_fact_is_transformers_own(self, backbone):
        [batch] = batches_of(backbone, TAUGHT, size=len(TAUGHT))
        losses = fact_losses(_final(backbone, batch), backbone.head, batch)
        for row, number in enumerate(batch.facts):
            encoded = backbone.prompts.fact(TAUGHT[number])
            prompt = backbone.prompts.format.prompt(encoded.question)
            ids = torch.tensor([prompt + encoded.answer])
            labels = torch.tensor([[-100] * len(prompt) + list(encoded.answer)])
            expected = backbone.model(input_ids=ids, labels=labels).loss
            torch.testing.assert_close(losses[row], expected, rtol=1e-4, atol=1e-4)

    @torch.inference_mode()
    def test_the_upper_layers_on_kept_states_say_what_the_whole_model_says(self, backbone):
        batches = batches_of(backbone, TAUGHT, size=4)
        layers = len(backbone.model.get_decoder().layers)
        upper = Upper(backbone, 2, batches)
        for batch in batches:
            torch.testing.assert_close(upper.final(batch), _final(backbone, batch), rtol=1e-4, atol=1e-4)
        assert len(backbone.model.get_decoder().layers) == layers

    @pytest.mark.parametrize("name", ["lora", "locft"])
    @pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
    def test_training_lowers_the_loss_of_every_fact(self, own, name):
        before = _worst(own)
        rival = METHODS[name].teach(own, TAUGHT, Goal(epochs=8))
        assert rival.details["loss_max"] < before
        assert rival.details["loss_max"] == pytest.approx(_worst(own), rel=1e-2)  # what is asked is what was trained

    def test_locft_changes_one_matrix(self, own):
        _, matrix = late_layer(own, 0.8)
        before = {name: p.clone() for name, p in own.model.named_parameters()}
        METHODS["locft"].teach(own, TAUGHT, Goal(epochs=1))
        changed = [name for name, p in own.model.named_parameters() if not torch.equal(p, before[name])]
        assert changed == [name for name, p in own.model.named_parameters() if p is matrix.weight]


class TestRetrieval:
    def test_notes_as_text_hold_question_and_answer(self):
        [turn] = quoted("Why?", TAUGHT[:2])
        assert turn["role"] == "user" and turn["content"].startswith("Why?")
        assert all(fact.question in turn["content"] and fact.answer in turn["content"] for fact in TAUGHT[:2])

    def test_counts_the_tokens_that_the_notes_take_and_none_without_notes(self, backbone):
        rival = teach_notes(backbone, TAUGHT, Goal(), count=1)
        asked, strange = TAUGHT[0].question, "Zyx qwv"
        with_note, without = rival.ask([asked, strange], 4)
        [plain] = plain_prompts(backbone, [asked])
        whole = backbone.prompts.render(list(quoted(asked, [TAUGHT[0]])))
        assert (with_note.extra_tokens, with_note.used) == (len(whole) - len(plain), ("lighthouse",))
        assert (without.extra_tokens, without.used) == (0, ())


class TestGrace:
    def test_two_answers_too_close_share_the_distance_between_them(self):
        book = _book([0.0, 0.0], [0.8, 0.0], answers=["a", "b"])
        assert book.radii.tolist() == pytest.approx([0.4 - JUST_LESS, 0.4])
        assert book.hits(torch.tensor([[0.3, 0.0], [0.5, 0.0], [-0.5, 0.0]])) == [0, 1, None]

    def test_far_keys_keep_the_first_radius(self):
        book = _book([0.0, 0.0], [9.0, 0.0], answers=["a", "b"])
        assert book.radii.tolist() == [1.0, 1.0]

    def test_the_same_answer_close_by_joins_the_entry_and_widens_it(self):
        book = _book([0.0, 0.0], [1.5, 0.0], answers=["a", "a"])
        assert (book.entry_of, book.radii.tolist()) == ([0, 0], [1.5])

    def test_the_gate_opens_for_the_taught_questions_and_every_other_output_is_the_backbones(self, own):
        before = greedy(own, plain_prompts(own, OTHER), 8)
        rival = teach_grace(own, TAUGHT, Goal())
        taught = rival.ask([fact.question for fact in TAUGHT], LONGEST)
        others = rival.ask(OTHER, 8)
        assert [reply.used for reply in taught] == [(fact.id,) for fact in TAUGHT]
        for reply, answer in zip(others, before, strict=True):
            assert reply.used or reply.answer.ids == answer.ids
        first = [own.prompts.fact(fact).answer[0] for fact in TAUGHT]
        assert [reply.answer.ids[0] for reply in taught] == first  # what the value was trained to say


def test_memtune_is_taught_by_its_own_verbs(own):
    rival = METHODS["memtune"].teach(own, TAUGHT, Goal())
    replies = rival.ask([fact.question for fact in TAUGHT], LONGEST)
    assert [reply.answer.text for reply in replies] == [fact.answer for fact in TAUGHT]
    assert [reply.used for reply in replies] == [(fact.id,) for fact in TAUGHT]
    assert rival.bytes > 0


class TestFigures:
    def test_recall_wants_the_whole_answer_and_its_stop(self, backbone):
        right, longer = _reply("Ann Brock."), _reply("Ann Brock. Or Bob.")
        cut = _reply("Ann Brock.", stopped=False)
        facts = TAUGHT[:1] * 3
        figures = recall(_Says([right, longer, cut]), facts, [[fact.question] for fact in facts], LONGEST)
        assert (figures["asked"], figures["exact"], figures["answer_contained"]) == (3, 1, 3)

    def test_unchanged_compares_ids(self):
        figures = unchanged(_Says([_reply("a", ids=(1, 2)), _reply("a", ids=(1, 3))]), OTHER, [[1, 2], [1, 2]])
        assert (figures["unchanged"], [miss["question"] for miss in figures["changed"]]) == (1, OTHER[1:])

    def test_single_questions_are_not_published(self):
        figures = {"methods": {"rag1": {"exact": {"exact": 1, "missed": ["q"], "used": [["id"]]}}}}
        assert without_lists(figures) == {"methods": {"rag1": {"exact": {"exact": 1}}}}

    def test_a_process_knows_its_own_peak(self):
        before = peak_bytes()
        block = torch.ones(16 << 20)  # 64 MiB
        assert peak_bytes() >= block.numel() * 4
        assert peak_bytes() >= before


class TestReport:
    def test_the_table_is_written_from_the_figures(self, tmp_path):
        (tmp_path / "side_by_side.json").write_text(json.dumps(_result()), encoding="utf-8")
        page = "top\n<!-- side by side: begin -->\nold\n<!-- side by side: end -->\nbottom\n"
        written = report.with_tables(page, tmp_path)
        assert "| LoRA | 50% | 25% | - | 0% | 1.5 | 1.50 GiB | 2.0 MiB | 7 |" in written
        assert written.startswith("top\n") and written.endswith("\nbottom\n") and "old" not in written
        assert "| grace | failed: exit code 1 |" in written

    def test_without_figures_the_page_stays_as_it_is(self, tmp_path):
        page = "<!-- side by side: begin -->\nold\n<!-- side by side: end -->\n"
        assert report.with_tables(page, tmp_path) == page

    def test_the_plot_has_a_bar_for_every_figure_and_none_for_what_failed_or_was_not_asked(self):
        drawn = plot(_result())
        assert [share for share in ("50%", "25%", "0%") if f">{share}<" in drawn] == ["50%", "25%", "0%"]
        assert drawn.count("%<") == 3


class _Says:
    """A rival that says what it is told to."""

    bytes, details = 0, {}

    def __init__(self, replies):
        self.replies = replies

    def ask(self, questions, longest):
        return self.replies


def _reply(text, *, ids=(1,), stopped=True):
    from memtune.asking import Answer

    return Reply(Answer(text, ids, (1.0,) * len(ids), stopped))


def _final(backbone, batch):
    return backbone.model.get_decoder()(input_ids=batch.ids).last_hidden_state


@torch.inference_mode()
def _worst(backbone):
    return max(float(fact_losses(_final(backbone, b), backbone.head, b).max()) for b in batches_of(backbone, TAUGHT))


def _book(*keys, answers):
    book = Codebook(len(keys[0]))
    for key, answer in zip(keys, answers, strict=True):
        book.add(torch.tensor(key), answer)
    return book


def _result():
    def asked(count, **figures):
        return {"asked": count, "seconds_per_question": 0.25} | figures

    lora = {
        "says": "LoRA",
        "seconds_per_fact": 3.5,
        "seconds": {"teach_cpu": 6.0},
        "bytes_per_fact": 2 << 20,
        "extra_tokens_per_question": 7.0,
        "peak_bytes": {"asked": 3 << 29},
        "exact": asked(4, exact=2),
        "paraphrase": asked(4, exact=1),
        "near_miss": asked(0, unchanged=0),
        "unrelated": asked(4, unchanged=0),
    }
    return {
        "command": {"model": "tiny"},
        "on": {"threads": 1, "torch": "2"},
        "facts": 4,
        "asked": {"paraphrases": 4, "near_miss": 0, "unrelated": 4},
        "methods": {"lora": lora, "grace": {"failed": "exit code 1"}},
    }
