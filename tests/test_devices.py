"""A backbone on a GPU: every verb works, and nothing is computed from tensors on two devices.

The GPU is a pretended one, so that this is known on every machine; in processes of their own, for there it is one of
torch's devices from then on.
"""

from __future__ import annotations

import json
import textwrap

import pytest
from tiny import FACTS

backends = pytest.importorskip("torch.utils.backend_registration")
if not hasattr(backends, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch lets no Python code pretend a device", allow_module_level=True)

ON_A_GPU = """
    import json, sys
    from pathlib import Path

    import torch
    from pretend import PretendGpu
    from tiny import FACTS, lighten, write_facts
    from memtune.backbone import load_backbone
    from memtune.config import Config

    lighten(setattr)
    torch.set_num_threads(1)
    checkpoint, place = sys.argv[1], Path(sys.argv[2])
    config, project = Config(model=checkpoint, verify="all"), place / "project"
    facts = write_facts(place / "facts.jsonl")
    backbone = load_backbone(checkpoint)
    backbone.model.set_attn_implementation("eager")  # of the others, each device has its own
"""


@pytest.fixture
def on_a_gpu(run_python, checkpoint, tmp_path):
    """What code prints as JSON that has ``backbone`` on the GPU, a fact file and a place for a project."""

    def run(code, *arguments):
        there = textwrap.indent("backbone.model.to('gpu')\n" + textwrap.dedent(code), "    ")
        whole = f"{textwrap.dedent(ON_A_GPU)}\nwith PretendGpu():\n{there}"
        return json.loads(run_python(whole, checkpoint, tmp_path, *arguments).splitlines()[-1])

    return run


def test_two_devices_are_not_mixed_on_it(on_a_gpu):
    said = on_a_gpu("""
        here, there = torch.ones(2, 2), torch.ones(2, 2).to("gpu")
        outcomes = {"there": (there @ there).tolist(), "back": (there.cpu() @ here).tolist()}
        try:
            there @ here
        except RuntimeError as error:
            outcomes["mixed"] = str(error)
        print(json.dumps(outcomes))
    """)
    assert said["there"] == said["back"] == [[2, 2], [2, 2]]
    assert said["mixed"].startswith("Expected all tensors to be on the same device")


def test_facts_are_taught_asked_and_changed(on_a_gpu):
    said = on_a_gpu("""
        from memtune import change, evaluate, facts as files, ingest, probe, tune
        ingest.ingest(facts, project, config, backbone=backbone)
        tuned = tune.tune(project, config, backbone=backbone)
        new = files.read_facts(write_facts(place / "new.jsonl", [("fence", "Who painted the fence?", "Tom Reed")]))
        added = change.add(new, project, config, backbone=backbone)
        change.forget(["valve"], project, config, backbone=backbone)
        answers = [asked.answer for asked in probe.probe([fact[1] for fact in FACTS[:1]], project, backbone=backbone)]
        exact = evaluate.evaluate(project, config, backbone=backbone).measures[0].good
        print(json.dumps([tuned.met, tuned.verified_exact, added.learned, answers, exact]))
    """)
    assert said == [True, len(FACTS), len(FACTS) + 1, [FACTS[0][2]], len(FACTS)]


def test_shards_are_fitted_and_merged(on_a_gpu):
    said = on_a_gpu("""
        from memtune import ingest, merge, shards, tune_shard
        ingest.ingest(facts, project, config, backbone=backbone)
        for number in (1, 2):
            tune_shard.tune_shard(project, config, shards.Shard(2, number), backbone=backbone)
        print(json.dumps(merge.merge(project, config, backbone=backbone).learned))
    """)
    assert said == len(FACTS)


def test_the_control_is_trained_there_too(on_a_gpu):
    said = on_a_gpu("""
        from memtune.evidence.lora import Lora
        from memtune.evidence.training import Goal
        from memtune.facts import read_facts
        with Lora.on(backbone, rank=4) as lora:
            print(json.dumps(lora.teach(read_facts(facts), Goal(epochs=2)).rounds))
    """)
    assert said == 2


def test_a_bundle_answers(on_a_gpu, bundle):
    said = on_a_gpu(
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer
        model = AutoModelForCausalLM.from_pretrained(sys.argv[3], trust_remote_code=True, attn_implementation="eager")
        model.eval().to("gpu")
        torch.nn.Module._apply(model.memory.router, lambda tensor: tensor.to("gpu"))  # as a loader may place it
        chat = [{"role": "user", "content": FACTS[0][1]}]
        tokens = AutoTokenizer.from_pretrained(sys.argv[3])
        ids = tokens.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = {name: tensor.to("gpu") for name, tensor in ids.items()}
        out = model.generate(**ids, do_sample=False, max_new_tokens=60)
        print(json.dumps(tokens.decode(out[0, ids["input_ids"].shape[1]:].tolist(), skip_special_tokens=True)))
        """,
        bundle,
    )
    assert said == FACTS[0][2]
