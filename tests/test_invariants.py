"""What must hold whatever else changes: only the facts are touched, nothing is lost, nothing is left to chance."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny import FACTS, PAD, write_facts
from transformers import DynamicCache

from memtune import teaching
from memtune import tune as tuning
from memtune.events import Learned, Progress
from memtune.ingest import ingest
from memtune.memory.module import Attachment
from memtune.probe import probe
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

STORED = FACTS[0][1]
UNKNOWN = "What is the capital of France?"
EXAMPLES = Path(__file__).parents[1] / "examples"
BENCHMARKS = EXAMPLES.parent / "benchmarks"
MANY = [(f"unit-{i}", f"What is the code of unit {i}?", f"HT-{7 * i:03}") for i in range(40)]


@pytest.fixture
def logits(backbone):
    """Logits of a prefill over a batch of questions, padded on the left, and of three decode steps after it."""

    @torch.inference_mode()
    def run(*questions):
        rows = [backbone.prompts.format.prompt(backbone.prompts.question(text)) for text in questions]
        ids = torch.tensor([[PAD] * (max(map(len, rows)) - len(row)) + list(row) for row in rows])
        mask, cache = (ids != PAD).long(), DynamicCache()
        parts = [backbone.model(ids, attention_mask=mask, past_key_values=cache).logits]
        for token in backbone.prompts.ids("Ann Brock.")[:3]:
            mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=torch.long)], 1)
            step = torch.full((len(rows), 1), token)
            parts.append(backbone.model(step, attention_mask=mask, past_key_values=cache).logits)
        return torch.cat(parts, 1)

    return run


@pytest.fixture
def attached(backbone):
    @contextmanager
    def attach(memory):
        attachment = Attachment(backbone.model, memory)
        try:
            yield attachment
        finally:
            attachment.detach()

    return attach


def rows_of(project):
    """The bytes of every fact's keys and values, by its id."""
    bank = load_memory(Project(project)).bank
    return {
        bank.id_of(i): [rows[bank.run(i)].numpy().tobytes() for rows in (bank.keys, bank.values, bank.scales)]
        for i in range(bank.sizes.facts)
    }


def hashes(project):
    files = Project(project).state["files"]
    return {kind: record["sha256"] for kind, record in files.items() if kind != "log"}  # which says when it was


class TestTheBackboneIsUntouched:
    """1. Where no fact fires, the logits are those of the backbone, bit for bit."""

    def test_on_the_null_route(self, logits, attached, memory):
        plain = logits(UNKNOWN)
        with attached(memory):
            assert torch.equal(logits(UNKNOWN), plain)

    def test_with_an_empty_bank(self, logits, attached, empty_memory):
        plain = logits(STORED, UNKNOWN)
        with attached(empty_memory):
            assert torch.equal(logits(STORED, UNKNOWN), plain)

    def test_with_the_memory_switched_off(self, logits, attached, memory):
        plain = logits(STORED)
        with attached(memory) as attachment:
            attachment.enabled = False
            assert torch.equal(logits(STORED), plain)
            attachment.enabled = True
            assert not torch.equal(logits(STORED), plain)

    def test_after_it_was_detached(self, logits, attached, memory):
        plain = logits(STORED)
        with attached(memory):
            logits(STORED)
        assert torch.equal(logits(STORED), plain)

    def test_in_a_row_beside_one_that_fires(self, logits, attached, memory):
        plain = logits(STORED, UNKNOWN)
        with attached(memory):
            fired, null = logits(STORED, UNKNOWN)
        assert torch.equal(null, plain[1])
        assert not torch.equal(fired, plain[0])

    def test_before_the_answer_of_one_that_fires(self, logits, attached, memory, backbone):
        plain = logits(STORED)
        with attached(memory):
            written = (logits(STORED) != plain).any(-1)[0].nonzero().flatten()
        prompt = len(backbone.prompts.format.prompt(backbone.prompts.question(STORED)))
        assert written.tolist() == list(range(prompt - 1, prompt + 3))


def test_2_a_fact_depends_on_no_other_fact(done, tmp_path, config, backbone):
    before = rows_of(done)
    kept = [fact for fact in FACTS if fact[0] not in {"gauge", "flag"}]
    changed = ("flag", "What colours does the flag of Quell have?", "Blue and white stripes, since 2031")
    added = ("ferry", "When does the last ferry leave?", "At 23:40")
    ingest(write_facts(tmp_path / "changed.jsonl", [added, *reversed(kept), changed]), done, config)
    result = tune(done, config, backbone=backbone)
    after = rows_of(done)
    assert result.met and result.already == len(kept)
    assert list(after) == ["ferry", *(name for name, _, _ in reversed(kept)), "flag"]
    assert all(after[name] == before[name] for name, _, _ in kept)
    assert after["flag"] != before["flag"]


SAME_BYTES = """
    import json, sys
    from pathlib import Path
    import tiny, torch
    from memtune.config import Config
    from memtune.ingest import ingest
    from memtune.project import Project
    from memtune.tune import tune

    tiny.lighten(setattr)
    torch.set_num_threads(1)
    facts, model, directory = sys.argv[1:]
    config = Config(model=model, verify="all")
    ingest(facts, Path(directory), config)
    tune(Path(directory), config)
    files = Project(Path(directory)).state["files"]
    print(json.dumps({kind: record["sha256"] for kind, record in files.items() if kind != "log"}))
"""


def test_3_same_file_same_seed_same_bytes(facts_file, tuned, tmp_path, config, backbone, run_python, monkeypatch):
    ingest(facts_file, tmp_path / "again", config)
    tune(tmp_path / "again", config, backbone=backbone)
    assert hashes(tmp_path / "again") == hashes(tuned)
    monkeypatch.setenv("MEMTUNE_CACHE", str(tmp_path / "cache"))  # nothing that this process has made is used again
    assert json.loads(run_python(SAME_BYTES, facts_file, config.model, tmp_path / "elsewhere")) == hashes(tuned)


ANSWERS = """
    import json, sys
    import torch, transformers

    project, bundle, questions = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    model = transformers.AutoModelForCausalLM.from_pretrained(bundle, trust_remote_code=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle)
    answers = []
    for question in questions:
        chat = [{"role": "user", "content": question}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**inputs, do_sample=False, max_new_tokens=60)
        answers.append(tokenizer.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
    assert "memtune" not in sys.modules

    from pathlib import Path
    from memtune.probe import probe

    probed = [found.answer for found in probe(questions, Path(project))]
    print(json.dumps({"bundle": answers, "probe": probed}))
"""


def test_4_what_was_accepted_is_said_again_in_a_fresh_process(tuned, bundle, run_python, config, backbone):
    questions = [question for _, question, _ in FACTS]
    said = json.loads(run_python(ANSWERS, tuned, bundle, json.dumps([*questions, UNKNOWN])))
    [unknown] = probe([UNKNOWN], tuned, backbone=backbone)
    expected = [*(answer for _, _, answer in FACTS), unknown.base_answer]
    assert said["probe"] == expected
    assert said["bundle"][:-1] == expected[:-1]
    assert said["bundle"][-1].startswith(unknown.base_answer[:10])


def test_5_more_facts_are_longer_tensors_not_more_of_them(ingested, tmp_path, config):
    ingest(write_facts(tmp_path / "many.jsonl", MANY), tmp_path / "many", config)

    def tensors(project):
        paths = [Project(project).path(kind) for kind in ("router", "bank")]
        files = [safe_open(path, framework="pt") for path in paths]
        return {name: file.get_slice(name).get_shape() for file in files for name in file.keys()}  # noqa: SIM118

    few, many = tensors(ingested), tensors(tmp_path / "many")
    assert few.keys() == many.keys()
    assert len(many["keys"]) == len(many["values"]) == 2
    assert len(many["offsets"]) == 1 and many["offsets"][0] == len(MANY) + 1


KILLED = """
    import json, os, random, shutil, signal, sys, time
    from pathlib import Path
    import torch
    from memtune import tune as tuning
    from memtune.backbone import load_backbone
    from memtune.config import Config
    from memtune.project import Project
    from memtune.store import load_facts, load_memory

    torch.set_num_threads(1)
    project, model, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    tuning.CHUNK, tuning.SAVE_EVERY, tuning.SHARE = 2, 0.0, float("inf")
    backbone = load_backbone(model)

    def run(directory):
        child = os.fork()
        if not child:
            tuning.tune(directory, Config(model=model, verify="all"), backbone=backbone)
            os._exit(0)
        return child

    copy = shutil.copytree(project, project.with_name("copy"))
    started = time.monotonic()
    os.waitpid(run(copy), 0)
    whole = time.monotonic() - started
    assert Project(copy).need("tune", "")["learned"] == len(load_facts(Project(copy)))

    draw, learned, killed = random.Random(0), [], 0
    for _ in range(times):
        child = run(project)
        time.sleep(draw.uniform(0, whole / 3))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        state = Project(project)
        load_facts(state)
        learned.append(int(load_memory(state).bank.accepted.sum()))
    print(json.dumps({"learned": learned, "killed": killed}))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL and fork")
def test_6_a_kill_at_any_moment_loses_no_finished_work(tmp_path, config, backbone, run_python, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    project = tmp_path / "project"
    ingest(write_facts(tmp_path / "many.jsonl", MANY), project, config)
    report = json.loads(run_python(KILLED, project, config.model, 8))
    assert report["killed"] >= 6
    assert report["learned"] == sorted(report["learned"]) and report["learned"][-1] > 0
    result = tune(project, config, backbone=backbone)
    assert result.met and result.already == report["learned"][-1]
    assert sorted(path.name.partition("-")[0] for path in project.iterdir()) == sorted(
        ["project.json", "lock", "facts", "router", "bank", "log", "past"]
    )


@pytest.mark.parametrize(
    ("moment", "fitted"),
    [
        (lambda event: event == Progress("learned", 0, len(FACTS)), 0),
        (lambda event: isinstance(event, Learned), 2),
        (lambda event: isinstance(event, Progress) and event.stage == "verified", len(FACTS)),
    ],
    ids=["before the first chunk", "while fitting", "while verifying"],
)
def test_6_ctrl_c_saves_what_was_fitted(fresh, config, backbone, monkeypatch, request, moment, fitted):
    for name, value in (("CHUNK", 2), ("REPORT_EVERY", 0.0), ("SHARE", float("inf"))):
        monkeypatch.setattr(tuning, name, value)
    monkeypatch.setattr(teaching, "SAMPLE", 2)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupt(event):
        if moment(event):
            signal.raise_signal(signal.SIGINT)

    result = tune(fresh, config, backbone=backbone, on_event=interrupt)
    assert result.interrupted and not result.met and result.learned == fitted
    assert [found.fired for found in probe([STORED], fresh, backbone=backbone)] == [fitted > 0]
    again = tune(fresh, config, backbone=backbone)
    assert again.met and again.already == fitted


REAL = """
    import json, sys
    from pathlib import Path
    from memtune.backbone import load_backbone
    from memtune.config import Config
    from memtune.export import export
    from memtune.ingest import ingest
    from memtune.probe import probe
    from memtune.tune import tune

    model, examples, directory = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    project, config = directory / "project", Config(model=model, verify="all")
    ingest(examples / "facts.jsonl", project, config)
    backbone = load_backbone(model)
    tuned = tune(project, config, backbone=backbone)
    exported = export(project, directory / "bundle", backbone=backbone)
    asked = [json.loads(line) for line in (examples / "paraphrases.jsonl").read_text().splitlines()][::6]
    probed = list(probe([fact["question"] for fact in asked], project, backbone=backbone))
    fired = [found.answer == fact["answer"] for found, fact in zip(probed, asked) if found.fired]
    task = "Translate this question into French: {question}"
    tasks = list(probe([task.format(**fact) for fact in asked], project, backbone=backbone))
    print(json.dumps({
        "learned": tuned.learned,
        "generated": tuned.verified_exact,
        "failed": [f"{fact.id}: {fact.reason}" for fact in tuned.failed],
        "exported": exported.exact,
        "asked": len(asked),
        "fired": len(fired),
        "right": sum(fired),
        "tasks_fired": sum(found.fired for found in tasks),
    }))
"""

LOADED = """
    import json, sys
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
    chat = [{"role": "user", "content": sys.argv[2]}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**inputs, do_sample=False, max_new_tokens=60)
    print(tokenizer.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
    assert "memtune" not in sys.modules
"""

AT_LOGITS = """
    import sys

    benchmarks, project, bundle, questions = sys.argv[1:]
    sys.path.insert(0, benchmarks)
    import at_logits

    sys.argv[1:] = ["--project", project, "--bundle", bundle, "--questions", questions]
    at_logits.main()
"""


@pytest.mark.real
@pytest.mark.slow
def test_the_real_checkpoint_learns_every_example_and_hands_it_on(smollm2, tmp_path, run_python):
    report = json.loads(run_python(REAL, smollm2, EXAMPLES, tmp_path).splitlines()[-1])
    facts = [json.loads(line) for line in (EXAMPLES / "facts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert report["failed"] == []
    assert report["learned"] == report["generated"] == report["exported"] == len(facts) == 72
    # Hard rewordings of look-alike facts: at one false fire in a hundred a third fire, and what fires is right.
    assert report["right"] >= 0.25 * report["asked"]
    assert report["fired"] - report["right"] <= 0.1 * report["asked"]
    assert report["tasks_fired"] <= 0.1 * report["asked"]
    said = run_python(LOADED, tmp_path / "bundle", facts[0]["question"])
    assert said.strip() == facts[0]["answer"]
    asked = (BENCHMARKS, tmp_path / "project", tmp_path / "bundle", EXAMPLES / "paraphrases.jsonl")
    at_logits = json.loads(run_python(AT_LOGITS, *asked))
    assert at_logits["facts"]["exact_at_the_logits"] == len(facts)
    assert at_logits["wordings"]["exact_in_one_alone"] == 0
