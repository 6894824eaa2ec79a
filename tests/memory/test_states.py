"""States are read as a plain forward pass behind the template's prefix gives them, and the model is none the wiser."""

from __future__ import annotations

import pytest
import torch

from memtune.memory.states import StateReader, decoder_layers, default_taps

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def rows(backbone):
    texts = ["Where does the tram end?", "x", "등대는 누가 지었나요?", "What is the part number of the valve? " * 3]
    return [backbone.prompts.ids(text) for text in texts]


@pytest.fixture
def reader(backbone):
    return StateReader(backbone.model, backbone.prompts.format.prefix)


@torch.inference_mode()
def plain_pass(backbone, prefix, row):
    """Hidden states of every layer at the row's tokens, from one ordinary pass over prefix and row."""
    out = backbone.model.get_decoder()(input_ids=torch.tensor([prefix + row]), output_hidden_states=True)
    return [layer[0, len(prefix) :] for layer in out.hidden_states], out.last_hidden_state[0, len(prefix) :]


def test_early_states_are_those_after_the_tapped_layers(backbone, reader, rows):
    for row, early in zip(rows, reader.early(rows), strict=True):
        layers, _ = plain_pass(backbone, reader.prefix, row)
        assert early.shape == (len(reader.taps), len(row), backbone.hidden)
        torch.testing.assert_close(early, torch.stack([layers[tap] for tap in reader.taps]), **CLOSE)


def test_a_whole_pass_gives_the_final_states_too(backbone, reader, rows):
    seen = []
    for together in reader.whole(rows):
        for i, early, final in together:
            layers, last = plain_pass(backbone, reader.prefix, rows[i])
            torch.testing.assert_close(early[0], layers[reader.taps[0]], **CLOSE)
            torch.testing.assert_close(final, last, **CLOSE)
            seen.append(i)
    assert sorted(seen) == list(range(len(rows)))


def test_without_a_prefix_a_row_stands_alone(backbone, rows):
    reader = StateReader(backbone.model, ())
    for row, early in zip(rows, reader.early(rows), strict=True):
        torch.testing.assert_close(early[-1], plain_pass(backbone, (), row)[0][reader.taps[-1]], **CLOSE)


def test_a_row_reads_the_same_in_any_company(reader, rows):
    together = reader.early(rows * 5)
    for i, row in enumerate(rows):
        torch.testing.assert_close(together[len(rows) * 3 + i], reader.early([row])[0], **CLOSE)


def test_rows_that_begin_alike_are_read_in_fewer_tokens(backbone, reader, rows):
    row = rows[0]
    alike = [row + rows[1], row + rows[2], row, row]
    reader.early(alike)  # what is asked of the model, is asked once
    widths = []
    hook = backbone.model.get_decoder().register_forward_pre_hook(
        lambda _, args, entries: widths.append(entries["input_ids"].shape), with_kwargs=True
    )
    read = reader.early(alike)
    hook.remove()
    assert widths == [(1, len(row) + len(rows[1]) + len(rows[2]))]
    for row, early in zip(alike, read, strict=True):
        torch.testing.assert_close(early, reader.early([row])[0], **CLOSE)


def test_a_model_that_reads_no_mask_of_ours_reads_each_row_alone(backbone, reader, rows, monkeypatch):
    def deaf(*args, attention_mask=None, **entries):
        return forward(*args, **entries)

    decoder = backbone.model.get_decoder()
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", deaf)
    alike = [rows[0] + rows[1], rows[0] + rows[2]]
    read = reader.early(alike)
    for row, early in zip(alike, read, strict=True):
        torch.testing.assert_close(early[-1], plain_pass(backbone, reader.prefix, row)[0][reader.taps[-1]], **CLOSE)


def test_behind_another_prefix_it_reads_as_one_that_was_made_for_it(backbone, reader, rows):
    reader.early(rows)
    prefix = reader.prefix + rows[0]
    [[(_, early, final)]] = reader.behind(prefix).whole(rows[1:2])
    layers, last = plain_pass(backbone, prefix, rows[1])
    torch.testing.assert_close(early, torch.stack([layers[tap] for tap in reader.taps]), **CLOSE)
    torch.testing.assert_close(final, last, **CLOSE)
    [early] = reader.early(rows[1:2])  # its own prefix is what it was
    torch.testing.assert_close(early[-1], plain_pass(backbone, reader.prefix, rows[1])[0][reader.taps[-1]], **CLOSE)


def test_no_rows_are_no_work(reader):
    assert reader.early([]) == [] and list(reader.whole([])) == []


def test_an_early_pass_stops_at_its_last_layer(backbone, reader, rows):
    ran = []
    layers = decoder_layers(backbone.model)
    hooks = [layer.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, layer in enumerate(layers, 1)]
    reader.early(rows[:1])
    for hook in hooks:
        hook.remove()
    assert max(ran) == max(reader.taps) < len(layers)


def test_reading_leaves_nothing_behind(backbone, reader, rows):
    def hooks():
        return [(*module._forward_hooks, *module._forward_pre_hooks) for module in backbone.model.modules()]

    ids, hooked = torch.tensor([rows[0]]), hooks()
    with torch.inference_mode():
        before = backbone.model(input_ids=ids).logits
        reader.early(rows)
        list(reader.whole(rows))
        assert torch.equal(backbone.model(input_ids=ids).logits, before)
    assert hooks() == hooked


@pytest.mark.parametrize("layers", range(1, 100))
def test_the_taps_are_layers_of_the_model_in_order(layers):
    taps = default_taps(layers)
    assert list(taps) == sorted(set(taps)) and taps[0] >= 1 and taps[-1] <= layers
