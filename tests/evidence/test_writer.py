"""A model that goes back is as if it had never gone there: bit for bit where it reads the same pieces again."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS, save_kind
from transformers.cache_utils import DynamicLayer

from memtune.backbone import load_backbone
from memtune.errors import ModelError
from memtune.evidence.rewinding.writer import Writer

TRAM = next(fact for fact in FACTS if fact[0] == "tram")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "initializer_range": 0.1}
ATTENTION = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
# The reference path of mamba says at every load that there is a faster one.
pytestmark = pytest.mark.filterwarnings("ignore:.*falling back:UserWarning")


def writer_of(backbone, question=TRAM[1], longest=40, seed=0):
    prompts = backbone.prompts
    return Writer(backbone, prompts.format.prompt(prompts.question(question)), longest, seed)


@pytest.fixture
def written(backbone):
    return backbone.prompts.answer(TRAM[2])[:-1]


@torch.inference_mode()
def at_once(backbone, writer, text):
    """The logits behind a text that is read in one pass, without a cache."""
    return backbone.model(input_ids=torch.tensor([writer.prompt + text])).logits[0, -1]


def wander(writer, text):
    """Goes elsewhere from several places in a text, and back."""
    for end in (len(text), 3, 1, 5):
        writer.finish(text[:end])
        writer.sets(text[:end], 4, 5)


class TestGoingBack:
    def test_logits_are_those_of_a_run_that_never_went_elsewhere(self, backbone, written):
        fresh, moved = writer_of(backbone), writer_of(backbone)
        wander(moved, written)
        moved.logits(())
        read_again = moved.logits(written)  # the same pieces as in the fresh run: the prompt's end, the text
        fresh.finish(())
        fresh.logits(())
        assert torch.equal(read_again, fresh.logits(written))

    def test_logits_are_those_of_one_pass_over_everything(self, backbone, written):
        writer = writer_of(backbone)
        for end in (len(written), 2, 7, 0, 4):
            wander(writer, written)
            torch.testing.assert_close(writer.logits(written[:end]), at_once(backbone, writer, written[:end]), **CLOSE)

    def test_the_cache_holds_what_was_read_and_no_more(self, backbone, written):
        writer = writer_of(backbone)
        wander(writer, written)
        writer.logits(written[:3])
        assert all(isinstance(layer, DynamicLayer) for layer in writer._cache.layers)
        assert writer._cache.get_seq_length() == len(writer.prompt) + 3

    def test_states_are_those_of_the_text_alone(self, backbone, written):
        writer = writer_of(backbone)
        wander(writer, written)
        states = writer.states(written)
        assert states.shape == (len(written), backbone.hidden)
        ids = torch.tensor([writer.prompt + written])
        with torch.inference_mode():
            final = backbone.model.get_decoder()(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(states, final[len(writer.prompt) :], **CLOSE)

    @pytest.mark.parametrize(
        ("kind", "entries", "cuts"),
        [
            ("mamba", SIZES | {"state_size": 16}, False),
            ("gemma3_text", SIZES | ATTENTION | {"head_dim": 16, "sliding_window": 8}, True),
        ],
    )
    def test_a_model_of_states_reads_all_again_and_windows_are_kept_whole(self, kind, entries, cuts, tmp_path):
        backbone = load_backbone(save_kind(tmp_path / kind, kind, **entries))
        writer, written = writer_of(backbone), backbone.prompts.answer(TRAM[2])[:-1]
        assert (writer._cache is not None) is cuts
        wander(writer, written)
        torch.testing.assert_close(writer.logits(written), at_once(backbone, writer, written), **CLOSE)

    def test_a_model_of_states_without_a_template_is_refused(self, tmp_path):
        backbone = load_backbone(save_kind(tmp_path / "mamba", "mamba", None, **SIZES, state_size=16))
        with pytest.raises(ModelError, match="cannot take back"):
            writer_of(backbone)


class TestTheMemory:
    def test_it_takes_part_wherever_the_model_went(self, backbone, attachment, written):
        writer = writer_of(backbone)
        for end in (0, 6, 2):
            wander(writer, (5, 6, 7))
            assert int(writer.logits(written[:end]).argmax()) == written[end]

    def test_a_stored_answer_is_the_only_way_on(self, backbone, attachment, written):
        writer = writer_of(backbone)
        assert [one.tokens for one in writer.sets(written[:2], 4, 10)] == [written[2:6]]
        assert writer.finish(()) == written


class TestTokenSets:
    def test_single_tokens_are_the_likeliest_and_sum_to_one(self, backbone):
        writer = writer_of(backbone)
        sets = writer.sets((), 1, 10)
        assert [one.tokens[0] for one in sets] == writer.logits(()).topk(10).indices.tolist()
        assert sum(one.probability for one in sets) == pytest.approx(1)

    def test_longer_ones_differ_and_the_first_is_greedy(self, backbone):
        writer = writer_of(backbone)
        sets = writer.sets((), 4, 10)
        assert len({one.tokens for one in sets}) == len(sets) > 5
        greedy = ()
        for _ in range(4):
            greedy += (int(writer.logits(greedy).argmax()),)
        assert sets[0].tokens == greedy
        assert all(0 < one.probability < 1 for one in sets)

    def test_they_end_where_the_answer_ends(self, backbone, attachment, written):
        [one] = writer_of(backbone).sets(written[:-2], 10, 5)
        assert one.tokens == (*written[-2:], backbone.prompts.stop)

    def test_they_end_where_there_is_no_more_room(self, backbone):
        writer = writer_of(backbone, longest=6)
        assert {len(one.tokens) for one in writer.sets((5, 6, 7), 10, 3)} == {3}
        assert writer.ended((5,) * 6) and not writer.ended((5,) * 5)

    def test_the_seed_decides_what_is_sampled(self, backbone):
        one, same, other = (writer_of(backbone, seed=seed).sets((), 4, 5) for seed in (0, 0, 1))
        assert one == same != other


class TestSentences:
    @pytest.mark.parametrize(
        ("said", "next_word", "ends"),
        [
            ("The tram ends here.", " The", True),
            ("The tram ends here.", "", True),  # the stop token
            ("Version 5.", "2", False),
            ("The tram ends", " at", False),
            ("1. Hold the button.\n", "2", True),
        ],
    )
    def test_a_sentence_ends_at_its_mark_if_space_follows(self, backbone, said, next_word, ends):
        writer, prompts = writer_of(backbone), backbone.prompts
        after = prompts.ids(next_word)[0] if next_word else prompts.stop
        assert writer._ends_before(after, prompts.ids(said)) is ends
