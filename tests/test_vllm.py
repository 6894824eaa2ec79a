"""The memory in vLLM: its two interfaces as the runners use them, and a real server. Run where vLLM is installed:

make test-vllm
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import FACTS

pytest.importorskip("vllm")

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import numpy
import vllm_server
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotProcessor

from memtune.errors import ModelError
from memtune.vllm import MemoryProcessor

TRAM, VALVE = FACTS[2], FACTS[1]
UNKNOWN = "What is the capital of France?"
CPU = torch.device("cpu")


def config(model, **more):
    return SimpleNamespace(model_config=SimpleNamespace(model=str(model)), additional_config=more)


@pytest.fixture(scope="module")
def loaded(bundle):
    return MemoryProcessor(config(bundle), CPU, False)


@pytest.fixture
def processor(loaded):
    """The same one, with no request in it."""
    loaded._asked.clear()
    return loaded


@pytest.fixture
def prompt(backbone):
    return lambda question: list(backbone.prompts.format.prompt(backbone.prompts.question(question)))


@pytest.fixture
def ids(backbone):
    """The tokens of an answer with its stop token."""
    return lambda text: list(backbone.prompts.answer(text))


@pytest.fixture
def chosen(processor, backbone):
    """The token that each row of a batch of flat logits would give, -1 where no bit of the row was changed."""

    def chosen(rows, *context):
        flat = torch.zeros(rows, backbone.head.weight.shape[0])
        written = processor.apply(flat.clone(), *context)
        return [int(row.argmax()) if row.any() else -1 for row in written]

    return chosen


def batch(size, removed=(), added=(), moved=()):
    added = [(row, None, prompt, said) for row, prompt, said in added]
    return BatchUpdate(batch_size=size, removed=list(removed), added=added, moved=list(moved))


def test_it_is_a_processor_for_both_runners(processor):
    assert issubclass(MemoryProcessor, LogitsProcessor) and issubclass(MemoryProcessor, SlotProcessor)
    assert not processor.is_argmax_invariant()


def test_each_row_of_a_batch_is_told_its_own_answer(processor, prompt, ids, chosen):
    tram, valve, other = [], [], []
    requests = [(0, prompt(TRAM[1]), tram), (1, prompt(UNKNOWN), other), (2, prompt(VALVE[1]), valve)]
    processor.update_state(batch(3, added=requests))
    for step in range(3):
        assert chosen(3) == [ids(TRAM[2])[step], -1, ids(VALVE[2])[step]]
        for said in (tram, valve, other):
            said.append(9)  # whatever was sampled
        processor.update_state(None)


def test_behind_the_stop_token_nothing_is_said(processor, prompt, ids, chosen):
    said = []
    processor.update_state(batch(1, added=[(0, prompt(VALVE[1]), said)]))
    said.extend(ids(VALVE[2])[:-1])
    assert chosen(1) == [ids(VALVE[2])[-1]]
    said.append(0)
    assert chosen(1) == [-1]


def test_a_request_that_was_preempted_goes_on_where_it_was(processor, prompt, ids, chosen):
    processor.update_state(batch(1, added=[(0, prompt(TRAM[1]), ids(TRAM[2])[:4])]))
    assert chosen(1) == [ids(TRAM[2])[4]]


def test_a_prompt_that_ends_in_an_answer_goes_on_in_it(processor, prompt, ids, chosen):
    processor.update_state(batch(1, added=[(0, prompt(TRAM[1]) + ids(TRAM[2])[:4], [])]))
    assert chosen(1) == [ids(TRAM[2])[4]]


def test_requests_leave_and_move_and_their_rows_are_taken_by_others(processor, prompt, ids, chosen):
    tram, valve = ids(TRAM[2]), ids(VALVE[2])
    added = [(0, prompt(TRAM[1]), []), (1, prompt(UNKNOWN), []), (2, prompt(VALVE[1]), [])]
    processor.update_state(batch(3, added=added))
    processor.update_state(batch(3, moved=[(0, 1, MoveDirectionality.SWAP)]))
    assert chosen(3) == [-1, tram[0], valve[0]]
    processor.update_state(batch(2, removed=[1], moved=[(2, 1, MoveDirectionality.UNIDIRECTIONAL)]))
    assert chosen(3) == [-1, valve[0], -1]
    processor.update_state(batch(2, added=[(1, prompt(UNKNOWN), [])]))
    assert chosen(2) == [-1, -1]


def test_a_prompt_without_ids_is_left_alone(processor, chosen):
    processor.update_state(batch(1, added=[(0, None, [])]))
    assert chosen(1) == [-1]


@pytest.fixture
def slots(bundle, loaded):
    """The newer runner's processor over four slots, and what puts a prompt in one."""
    tokens, lengths = torch.zeros(4, 200, dtype=torch.int32), numpy.zeros(4, dtype=numpy.int32)
    state = LogitsProcRequestState(
        device=CPU,
        max_num_reqs=4,
        vocab_size=len(loaded._memory._added),
        all_token_ids=SimpleNamespace(gpu=tokens),
        prompt_len=SimpleNamespace(np=lengths),
        prefill_len=None,
        total_len=None,
    )
    processor = MemoryProcessor(config(bundle), state)

    def put(slot, ids):
        assert processor.add_request(slot, None)
        lengths[slot] = len(ids)
        tokens[slot, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        processor.apply_staged_writes()

    return processor, put


def context(slots, positions, own=None):
    """Rows of a batch by slot and position; ``own``: how many rows each request has, where it has drafts."""
    requests = list(dict.fromkeys(slots))
    return LogitsContext(
        expanded_idx_mapping=torch.tensor(slots),
        idx_mapping=torch.tensor(requests),
        idx_mapping_np=numpy.array(requests),
        expanded_local_pos=torch.tensor(own or [0] * len(slots)),
        input_ids=torch.zeros(len(slots), dtype=torch.int64),
        pos=torch.tensor(positions),
        seq_lens_upper_bound_np=numpy.array(positions) + 1,
    )


def written(processor, ctx):
    logits = processor.apply(torch.zeros(len(ctx.pos), len(processor._memory._added)), ctx)
    return [int(row.argmax()) if row.any() else -1 for row in logits]


def test_the_newer_runner_names_slot_and_position_of_a_row(slots, prompt, ids):
    processor, put = slots
    put(3, prompt(TRAM[1]))
    put(1, prompt(UNKNOWN))
    put(0, prompt(VALVE[1]))
    tram, valve = len(prompt(TRAM[1])) - 1, len(prompt(VALVE[1])) - 1
    assert written(processor, context([0, 1, 3], [valve, 9, tram])) == [ids(VALVE[2])[0], -1, ids(TRAM[2])[0]]
    assert written(processor, context([3, 0], [tram + 2, valve + 1])) == [ids(TRAM[2])[2], ids(VALVE[2])[1]]
    assert written(processor, context([1], [9])) == [-1]


def test_a_draft_has_a_row_for_each_of_its_tokens(slots, prompt, ids):
    processor, put = slots
    put(2, prompt(TRAM[1]))
    last = len(prompt(TRAM[1])) - 1
    rows = context([2, 2, 2], [last + 1, last + 2, last + 3], own=[0, 1, 2])
    assert written(processor, rows) == ids(TRAM[2])[1:4]


def test_a_slot_forgets_who_was_in_it(slots, prompt):
    processor, put = slots
    put(2, prompt(TRAM[1]))
    put(2, prompt(UNKNOWN))
    assert written(processor, context([2], [len(prompt(UNKNOWN)) - 1])) == [-1]


def test_another_model_may_be_served_with_the_memory_of_a_bundle(bundle, checkpoint):
    assert MemoryProcessor(config(checkpoint, memtune=str(bundle)), CPU)._memory.memory.config.taps


def test_a_model_without_a_memory_is_refused(checkpoint):
    with pytest.raises(ModelError, match="holds no memory"):
        MemoryProcessor(config(checkpoint), CPU)


@pytest.fixture(scope="module")
def narrow_bundle(tmp_path_factory, facts_file):
    """A bundle whose heads are as wide as vLLM's attention on a CPU knows them."""
    from tiny import save_checkpoint

    from memtune.config import Config
    from memtune.export import export
    from memtune.ingest import ingest
    from memtune.tune import tune

    folder = tmp_path_factory.mktemp("narrow")
    (folder / "checkpoint").mkdir()
    settings = Config(model=save_checkpoint(folder / "checkpoint", hidden=128))
    ingest(facts_file, folder / "project", settings)
    assert tune(folder / "project", settings).met and export(folder / "project", folder / "bundle").met
    return folder / "bundle"


@pytest.mark.slow
def test_a_server_says_the_facts_to_openai_clients_at_once(narrow_bundle, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    options = (*vllm_server.PROCESSOR, "--max-model-len", "256", "--max-num-seqs", "4")
    with vllm_server.server(str(narrow_bundle), tmp_path / "log", *options) as address, ThreadPoolExecutor(8) as pool:
        ask = partial(vllm_server.said, address, str(narrow_bundle), longest=40)
        asked = [question for _, question, _ in FACTS] * 2
        assert list(pool.map(ask, asked)) == [answer for *_, answer in FACTS] * 2
