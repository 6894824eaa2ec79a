"""Tracing: all put back is the clean run, nothing put back the corrupted one, and what is known to act is found."""

from __future__ import annotations

import pytest
import torch
from tiny import save_kind

from memtune.backbone import load_backbone
from memtune.errors import ConfigError, ModelError
from memtune.evidence.mechanism.anatomy import Anatomy, hooked
from memtune.evidence.mechanism.trace import DRAWN, Tracing, trace
from memtune.evidence.mechanism.tracer import Tracer

SIZES = {
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
GPT2 = {"n_embd": 96, "n_layer": 4, "n_head": 4, "n_inner": 64, "initializer_range": 0.1}
IDS = tuple(range(5, 17))
SUBJECT = range(4, 7)
NONE = torch.zeros(1, 0, 0)


@pytest.fixture(scope="module", params=["llama", "gpt2", "gpt_neox"])
def kind(request, tmp_path_factory):
    entries = GPT2 if request.param == "gpt2" else SIZES
    return load_backbone(save_kind(tmp_path_factory.mktemp(request.param) / "model", request.param, **entries))


@pytest.fixture
def tracer(kind):
    return Tracer(kind, IDS, SUBJECT.start)


def noise(rows=1):
    return torch.randn(rows, len(SUBJECT), 96, generator=torch.Generator().manual_seed(1))


def everywhere(tracer, rows=1):
    return torch.ones(rows, len(IDS) - tracer.first, dtype=torch.bool)


@torch.inference_mode()
def test_without_noise_it_is_the_model(kind, tracer):
    assert tracer.first == SUBJECT.start  # what stands before is shared
    expected = kind.model(input_ids=torch.tensor([IDS])).logits[:, -1]
    torch.testing.assert_close(tracer.run(NONE, range(0)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spoil", ["no cache", "another cache"])
def test_where_nothing_can_be_shared_the_whole_row_is_run(kind, tracer, monkeypatch, spoil):
    import transformers

    class Spoilt(transformers.DynamicCache):
        def __init__(self, *_args, **_options):
            if spoil == "no cache":
                raise TypeError("this model has another cache")
            super().__init__()

        def update(self, keys, values, *rest, **options):
            return super().update(keys * 3, values + 1, *rest, **options)

    monkeypatch.setattr(transformers, "DynamicCache", Spoilt)
    alone = Tracer(kind, IDS, SUBJECT.start)
    assert alone.first == 0
    torch.testing.assert_close(alone.run(noise(), SUBJECT), tracer.run(noise(), SUBJECT), rtol=1e-3, atol=1e-3)


def test_everything_put_back_is_the_clean_run_to_the_last_bit(tracer):
    anatomy = tracer.anatomy
    modules = [anatomy.embedding, *(m for p in anatomy.parts for m in (p.attention, p.mlp))]
    back = [(m, given, everywhere(tracer)) for m, given in zip(modules, tracer.record(modules), strict=True)]
    clean = tracer.run(NONE, range(0))
    assert not torch.equal(tracer.run(noise(), SUBJECT), clean)
    assert torch.equal(tracer.run(noise(), SUBJECT, back), clean)


def test_any_layer_put_back_everywhere_is_the_clean_run(tracer):
    clean = tracer.run(NONE, range(0))
    for layer, given in zip(tracer.anatomy.layers, tracer.record(list(tracer.anatomy.layers)), strict=True):
        assert torch.equal(tracer.run(noise(), SUBJECT, [(layer, given, everywhere(tracer))]), clean)


def test_nothing_put_back_is_the_corrupted_run_to_the_last_bit(tracer):
    modules = [m for p in tracer.anatomy.parts for m in (p.attention, p.mlp)]
    back = [(m, given, ~everywhere(tracer)) for m, given in zip(modules, tracer.record(modules), strict=True)]
    assert torch.equal(tracer.run(noise(), SUBJECT, back), tracer.run(noise(), SUBJECT))


def test_rows_do_not_see_each_other(tracer):
    together = tracer.run(noise(3), SUBJECT)
    for row, alone in enumerate(noise(3)):
        torch.testing.assert_close(together[row], tracer.run(alone[None], SUBJECT)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_an_inserted_expert_has_all_of_the_effect_where_it_stands_and_none_elsewhere(tracer, part):
    """The clean run has it, the corrupted one has not: the mediator is known."""
    expert = 3 * torch.randn(96, generator=torch.Generator().manual_seed(2))
    module, other = (getattr(tracer.anatomy.parts[layer], part) for layer in (1, 3))
    place = 6 - tracer.first

    def insert(_module, _args, out):
        made = (out[0] if isinstance(out, tuple) else out).clone()
        made[:, place] += expert
        return (made, *out[1:]) if isinstance(out, tuple) else made

    with hooked([(module, insert)]):
        clean = tracer.run(NONE, range(0))
        [given] = tracer.record([module])
    corrupted = tracer.run(NONE, range(0))
    here = torch.zeros_like(everywhere(tracer))
    here[:, place] = True
    assert not torch.allclose(clean, corrupted, atol=1e-3)
    assert torch.equal(tracer.run(NONE, range(0), [(module, given, here)]), clean)
    assert torch.equal(tracer.run(NONE, range(0), [(module, given, ~here)]), corrupted)
    [unchanged] = tracer.record([other])
    assert torch.equal(tracer.run(NONE, range(0), [(other, unchanged, here)]), corrupted)


@pytest.fixture(scope="module")
def traced(kind):
    return trace(kind, IDS, SUBJECT, said=7, gold=9, how=Tracing(noises=3))


def test_its_numbers_are_those_of_the_runs(kind, tracer, traced):
    y = [float(run[:, 7] - run[:, 9]) for run in (tracer.run(NONE, range(0)),)]
    assert traced.clean == pytest.approx(y[0], abs=1e-4)
    assert traced.total_effect == pytest.approx(traced.corrupted - traced.clean)
    assert traced.drawn == DRAWN and traced.used == 3
    assert 0 < traced.valid <= DRAWN and traced.total_effect < 0
    assert traced.centres == (0, 1, 2, 3)
    assert [name.split(":")[0] for name in traced.positions] == [
        "subject, first",
        "subject, middle",
        "subject, last",
        "first behind it",
        "further",
        "last",
    ]
    for kind_of in ("attention", "mlp"):
        assert [len(row) for row in traced.effects[kind_of]] == [6] * 4


def test_the_same_seed_gives_the_same_and_another_one_does_not(kind, traced):
    assert trace(kind, IDS, SUBJECT, said=7, gold=9, how=Tracing(noises=3)) == traced
    assert trace(kind, IDS, SUBJECT, said=7, gold=9, how=Tracing(noises=3, seed=1)) != traced


def test_where_there_is_no_other_answer_its_own_log_probability_is_traced(kind, tracer):
    found = trace(kind, IDS, SUBJECT, said=7, how=Tracing(stride=4, noises=1))
    assert found.measure == "log-probability of what is said" and found.gold == ""
    assert found.clean == pytest.approx(float(tracer.run(NONE, range(0)).log_softmax(-1)[0, 7]), abs=1e-4)
    assert trace(kind, IDS, SUBJECT, said=7, gold=7, how=Tracing(stride=4, noises=1)).measure == found.measure


def test_noise_that_never_lowers_y_is_told(kind, tracer):
    """Of all tokens, the one that the clean run prefers least over what each corrupted run says."""
    least = int(tracer.run(NONE, range(0)).argmin())
    found = trace(kind, IDS, SUBJECT, said=least, how=Tracing(stride=4, noises=2))
    assert found.valid < DRAWN and found.used == 2


def test_windows_are_ten_layers_where_there_are_so_many():
    assert Tracing().around(15, 30) == range(10, 20)
    assert Tracing().around(0, 30) == range(5)
    assert Tracing().around(29, 30) == range(24, 30)
    assert Tracing().centres(30) == range(0, 30, 3)
    assert Tracing(stride=7).centres(30) == range(0, 30, 7)


def test_a_stride_is_a_number_of_layers():
    with pytest.raises(ConfigError, match="stride is -1"):
        Tracing(stride=-1)


@pytest.mark.filterwarnings("ignore:.*falling back:UserWarning")
def test_a_model_without_attention_and_mlp_is_refused_with_words(tmp_path):
    mamba = load_backbone(save_kind(tmp_path / "mamba", "mamba", **SIZES, state_size=16))
    with pytest.raises(ModelError, match="is not attention and an MLP"):
        trace(mamba, IDS, SUBJECT, said=7)


def test_nothing_is_left_on_the_model(kind):
    calls = {module: len(module._forward_hooks) for module in kind.model.modules()}
    trace(kind, IDS, SUBJECT, said=7, how=Tracing(stride=4, noises=1))
    assert {module: len(module._forward_hooks) for module in kind.model.modules()} == calls
    assert Anatomy(kind).parts
