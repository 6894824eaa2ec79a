"""Projects, adapters and bundles that come from somebody else: refused with words before they are trusted.

Whoever wrote the file also wrote its checksum: ``tampered`` makes both agree.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import struct
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import FACTS

import memtune
from memtune.backbone import load_backbone, quiet_transformers
from memtune.errors import RESTORE, ModelError, ProjectError
from memtune.evaluate import evaluate
from memtune.export import export
from memtune.exported import exports_of, mark_stale
from memtune.history import History
from memtune.ingest import ingest
from memtune.logits import LogitMemory
from memtune.memory.module import MemoryConfig
from memtune.merge import merge
from memtune.project import Project
from memtune.store import load_facts, load_memory

SOURCES = Path(memtune.__file__).parent
QUESTION, ANSWER = FACTS[2][1:]
HUGE = 10**12  # experts: more than any machine has room for

peft_warnings = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def tampered(done):
    """Changes what ``project.json`` says, and the tensors or the bytes of a file, with all checksums right."""

    def change(state=None, kind="bank", tensors=None, data=None):
        entries = json.loads((done / "project.json").read_bytes())
        path = done / entries["files"][kind]["name"]
        if tensors:
            held = {name: tensor.clone() for name, tensor in load_file(path).items()}
            tensors(held)
            path.unlink()
            save_file(held, path)
        if data is not None:
            path.write_bytes(data)
        entries["files"][kind]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        if state:
            state(entries)
        (done / "project.json").write_text(json.dumps(entries))
        return done

    return change


def refused(project):
    with pytest.raises(ProjectError) as caught:
        load_memory(Project(project))
    assert caught.value.hint and str(project) in str(caught.value)
    return str(caught.value)


def edit(**changes):
    """Sets entries named ``a__b`` of nested objects."""

    def apply(entries):
        for path, value in changes.items():
            *outer, last = path.split("__")
            place = entries
            for key in outer:
                place = place[key]
            place[last] = value

    return apply


def put(name, where, value):
    def apply(tensors):
        next(tensor for full, tensor in tensors.items() if full.split(".")[-1] == name)[where] = value

    return apply


# --- sizes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit(memory__bank__experts=HUGE), f"bank.keys is int8 (83, 32), but int8 ({HUGE}, 32) by its config"),
        (edit(memory__router__words=HUGE), "router.views is uint8"),
        (edit(memory__bank__experts=10**30), f"BankSizes.experts is {10**30}"),
        (edit(memory__bank__experts=-1), "BankSizes.experts is -1"),
        (edit(memory__bank__experts=True), "BankSizes.experts is True"),
        (edit(memory__bank__experts="83"), "BankSizes.experts is '83'"),
        (edit(memory__bank__experts=83.0), "BankSizes.experts is 83.0"),
        (edit(memory__bank__d_key=10**9), "BankSizes.d_key is 1000000000"),
        (edit(memory__bank__rows="float64"), "BankSizes.rows is 'float64'"),
        (edit(memory__bank__rows=["int8"]), "BankSizes.rows is ['int8']"),
        (edit(memory__bank__rows="float32"), "bank.keys is int8 (83, 32), but float32 (83, 32) by its config"),
        (edit(memory__bank__more=1), "BankSizes unknown ['more']"),
        (edit(memory__bank={}), "BankSizes without ['facts', 'experts', 'hidden', 'id_bytes']"),
        (edit(memory__bank=[]), "BankSizes without"),
        (edit(memory__taps=[]), "the memory reads no layer"),
        (edit(memory__taps=[-1]), "taps is [-1], not a list of numbers from 1"),
        (edit(memory__taps="12"), "taps is '12'"),
        (edit(memory__format__prefix=[10**9]), "format is [1000000000], not a list of numbers from 0 to"),
        (edit(memory__format__closing=[None]), "format is [None]"),
        (edit(memory__format={}), "format is {}, not an object with prefix, opening, closing, newlines"),
        (edit(memory__extra=1), "not an object with bank, router, format, taps"),
    ],
)
def test_sizes_that_the_file_does_not_have_are_refused_before_room_is_made(tampered, change, reason):
    assert reason in refused(tampered(change))


def header(**tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04K\x01.",  # a pickle
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**40) + b"{}",
        header(keys={"dtype": "I8", "shape": [HUGE, 32], "data_offsets": [0, HUGE * 32]}),
        header(keys={"dtype": "I8", "shape": [2, 2], "data_offsets": [0, 400]}) + b"\0" * 400,
        header(keys={"dtype": "I8", "shape": [4], "data_offsets": [8, 4]}) + b"\0" * 8,
        header(keys={"dtype": "I8", "shape": [2**63, 2], "data_offsets": [0, 0]}),
    ],
)
def test_a_header_that_claims_what_the_file_does_not_hold_is_refused(tampered, data):
    message = refused(tampered(data=data))
    assert "holds no sound memory" in message and "bank-" in message


def drop(tensors):
    del tensors["scales"]


def add(tensors):
    tensors["more"] = torch.zeros(3)


def widen(tensors):
    tensors["keys"] = tensors["keys"].float()


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("bank", drop, "bank.scales is missing"),
        ("bank", add, "unknown tensors: ['bank.more']"),
        ("bank", widen, "bank.keys is float32 (83, 32), but int8 (83, 32) by its config"),
        ("bank", put("offsets", 2, 10**9), "bank.offsets does not go up from 0 to 83"),
        ("bank", put("offsets", 2, -5), "bank.offsets does not go up from 0 to 83"),
        ("bank", put("offsets", -1, 82), "bank.offsets does not go up from 0 to 83"),
        ("bank", put("offsets", 0, 1), "bank.offsets does not go up from 0 to 83"),
        ("bank", put("id_offsets", 1, 2**62), "bank.id_offsets does not go up"),
        ("bank", put("scales", 0, float("nan")), "bank.scales is not a number"),
        ("router", put("owner", 0, 6), "router.owner goes from 1 to 6, outside 0 to 5"),
        ("router", put("owner", 0, -1), "router.owner goes from -1 to"),
        ("router", put("offsets", 1, 10**9), "router.offsets does not go up"),
        ("router", put("spelling", 0, 10**6), "router.spelling goes from"),
        ("router", put("buckets", 0, -1), "router.buckets goes from -1"),
        ("router", put("piece_offsets", 3, -1), "router.piece_offsets does not go up"),
        ("router", put("probes", 0, 9), "router.probes goes from 9 to 9, outside 0 to 0"),
        ("router", put("sentences", 0, -1), "router.sentences goes from -1"),
        ("router", put("threshold", 0, float("nan")), "router.threshold is not a number"),
        ("router", put("caution", 1, float("nan")), "router.caution is not a number"),
    ],
)
def test_a_tensor_that_points_outside_another_is_refused(tampered, kind, change, reason):
    assert reason in refused(tampered(kind=kind, tensors=change))


# --- project.json


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit(files__bank__name="../../etc/passwd"), "files.bank is named '../../etc/passwd'"),
        (edit(files__bank__name="/etc/passwd"), "files.bank is named '/etc/passwd'"),
        (edit(files__bank__name="bank-0123456789abcdef.safetensors\0"), "files.bank is named"),
        (edit(files__bank__name=5), "files.bank.name is 5"),
        (edit(files__bank=None), "files.bank is None"),
        (edit(files=7), "files.files is 7"),
        (edit(model__name=["x"]), "model.name is ['x']"),
        (edit(model="smollm2"), "model is 'smollm2'"),
        (edit(ingest__facts="many"), "ingest.facts is 'many'"),
        (edit(ingest__expected_recall={}), "ingest.expected_recall is {}"),
        (edit(tune__until_loss="x\x1b[31m"), "tune.until_loss is 'x\\x1b[31m'"),
        (edit(seed="0"), "seed is '0'"),
        (edit(exports={"directory": "/"}), "exports is {'directory': '/'}"),
        (edit(exports=[{"directory": 5, "format": "bundle", "memory": []}]), "exports.directory is 5"),
    ],
)
def test_a_state_of_another_kind_is_refused_as_damaged(tampered, change, reason):
    assert f"project.json is damaged: {reason}" in refused(tampered(change))


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b"\xff\xfe{}", b'{"format":3,"a":NaN']
)
def test_a_state_that_is_no_json_is_refused_as_damaged(done, data):
    (done / "project.json").write_bytes(data)
    assert "project.json is damaged" in refused(done)


def test_an_entry_that_is_gone_is_named(tampered, backbone, tmp_path):
    def gone(entries):
        del entries["ingest"]["facts"]

    with pytest.raises(ProjectError, match=r"project\.json: ingest has no facts"):
        load_facts(Project(tampered(gone)))


def without(*path):
    def apply(entries):
        place = entries
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return apply


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("model"), "holds no finished model"),
        (without("model", "fingerprint"), "project.json: model has no fingerprint"),
        (without("router", "changed"), "project.json: router has no changed"),
        (without("ingest", "confusable"), "project.json: ingest has no confusable"),
        (edit(ingest__confusable=[{"two": 2}]), "project.json: ingest: confusable is [{'two': 2}]"),
        (edit(router__facts="many"), "router.facts is 'many'"),
        (without("files", "router"), "holds no router"),
    ],
)
def test_ingest_over_a_project_of_another_hand_says_what_is_wrong(
    tampered, facts_file, config, backbone, change, reason
):
    with pytest.raises(ProjectError, match=re.escape(reason)) as caught:
        ingest(facts_file, tampered(change), config, backbone=backbone)
    assert caught.value.hint == RESTORE


@pytest.mark.parametrize("name", ["seed", "router"])
def test_without_what_the_router_was_made_with_it_is_made_anew(tampered, facts_file, config, backbone, name):
    assert ingest(facts_file, tampered(without(name)), config, backbone=backbone).rebuilt


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("tune", "until_loss"), "tune has no until_loss"),
        (edit(tune__until_loss=None), "tune: until_loss is None"),
        (without("ingest", "expected_recall"), "ingest has no expected_recall"),
        (edit(ingest__expected_false_fire=None), "ingest: expected_false_fire is None"),
    ],
)
def test_eval_says_what_is_wrong_before_it_measures(tampered, config, change, reason):
    with pytest.raises(ProjectError, match=re.escape(reason)):
        evaluate(tampered(change), config.with_flags(model="./no-such-model"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("tune", "interrupted"), "tune has no interrupted"),
        (without("tune", "verified"), "tune has no verified"),
        (edit(tune__failed=[7]), "tune: failed is [7]"),
        (without("files", "router"), "holds no router"),
    ],
)
def test_merge_says_what_is_wrong_with_what_tune_left(tampered, config, backbone, change, reason):
    with pytest.raises(ProjectError, match=re.escape(reason)):
        merge(tampered(change), config, backbone=backbone)


def test_what_another_version_says_of_tune_besides_is_left_out(tampered, config, backbone):
    assert merge(tampered(edit(tune__more=1)), config, backbone=backbone).met


def test_stored_facts_that_are_none_are_named_with_their_line(tampered):
    project = Project(tampered(edit(ingest__facts=1), kind="facts", data=b'{"id": "\x1b[31m"}\n'))
    with pytest.raises(ProjectError, match=r"facts-\w+\.jsonl:1: not a stored fact: ") as caught:
        list(load_facts(project))
    assert str(caught.value).isprintable()


def test_nothing_is_written_into_a_directory_that_a_project_calls_its_export(tampered, tmp_path):
    other = tmp_path / "not-an-export"
    other.mkdir()
    (other / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    record = {"directory": str(other), "format": "bundle", "memory": []}
    project = Project(tampered(edit(exports=[record])))
    assert [export.state for export in exports_of(project)] == ["missing"]
    assert mark_stale(project) == ()
    assert [path.name for path in other.iterdir()] == ["adapter_config.json"]


@pytest.mark.parametrize("line", [b"{}", b"5", b"{", b"[" * 100_000, b'{"added": 1, "changed": [], "removed": []}'])
@pytest.mark.parametrize("kind", ["log", "past"])
def test_a_history_of_another_making_is_refused(tampered, kind, line):
    with pytest.raises(ProjectError, match="holds no sound history"):
        History(Project(tampered(kind=kind, data=line)))


# --- adapters


@pytest.fixture
def base(checkpoint):
    with quiet_transformers():
        return transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def exported_adapter(tuned, backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(tuned, folder / "project")  # a project remembers its exports, and this one is shared
    directory = folder / "adapter"
    assert export(folder / "project", directory, format="adapter", backbone=backbone).met
    return directory


@pytest.fixture
def adapter(exported_adapter, tmp_path):
    return Path(shutil.copytree(exported_adapter, tmp_path / "adapter"))


def change_json(path, change):
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


@peft_warnings
def test_an_adapter_of_other_sizes_than_its_file_is_refused(adapter, base):
    change_json(adapter / "adapter_config.json", edit(memory__bank__experts=HUGE))
    with pytest.raises(ModelError, match=rf"adapter_model\.safetensors: bank\.keys is .*, but int8 \({HUGE}, 32\)"):
        PeftModel.from_pretrained(base, adapter)


@peft_warnings
def test_an_adapter_in_a_pickle_is_not_opened(adapter, base):
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        PeftModel.from_pretrained(base, adapter)


@peft_warnings
def test_an_adapter_leads_to_no_project(adapter, base, tuned):
    change_json(adapter / "adapter_config.json", edit(project=str(tuned)))
    with pytest.raises(ModelError, match="names the project"):
        PeftModel.from_pretrained(base, adapter)


@peft_warnings
def test_an_adapter_that_points_outside_is_refused_when_it_is_asked(adapter, base, backbone):
    file = adapter / "adapter_model.safetensors"
    held = {name: tensor.clone() for name, tensor in load_file(file).items()}
    next(tensor for name, tensor in held.items() if name.endswith("bank.offsets"))[2] = 10**9
    file.unlink()
    save_file(held, file)
    model = PeftModel.from_pretrained(base, adapter)
    ids = torch.tensor([backbone.prompts.format.prompt(backbone.prompts.question(QUESTION))])
    with pytest.raises(ValueError, match=r"bank\.offsets does not go up from 0 to 83"):
        model(input_ids=ids)


# --- bundles


@pytest.fixture
def copied(bundle, tmp_path):
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit(memtune__bank__experts=10**30), "BankSizes.experts is 1000"),
        (edit(memtune__bank__more=1), "BankSizes unknown"),
        (edit(memtune__taps=[1, 99]), "the memory reads layer 99, the model has 4"),
        (edit(memtune=None), "memory is None, not an object"),
    ],
)
def test_a_bundle_says_itself_what_is_wrong_with_its_sizes(copied, load, change, reason):
    change_json(copied / "config.json", change)
    with pytest.raises(ValueError, match=re.escape(reason)):
        load(copied, trust_remote_code=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("memtune"), "holds no memory"),
        (edit(memtune__bank__more=1), "holds no sound memory: BankSizes unknown"),
        (edit(memtune=None), "holds no sound memory: memory is None"),
    ],
)
def test_at_the_logits_a_damaged_bundle_is_refused_as_one(copied, change, reason):
    change_json(copied / "config.json", change)
    with pytest.raises(ModelError, match=reason) as caught:
        LogitMemory.load(str(copied))
    assert "memtune export" in caught.value.hint


def test_a_bundle_that_points_outside_is_refused_when_it_is_asked(copied, load, answer):
    file = copied / "memory.safetensors"
    held = {name: tensor.clone() for name, tensor in load_file(file).items()}
    held["memory.bank.offsets"][2] = 10**9
    file.unlink()
    save_file(held, file, metadata={"format": "pt"})
    model = load(copied, trust_remote_code=True)
    with pytest.raises(ValueError, match=r"bank\.offsets does not go up from 0 to 83"):
        answer(model, QUESTION)


# A fresh process: what this one has used before would hide what the loading takes.
CLAIMS = """
import resource, sys, transformers
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
transformers.logging.set_verbosity_error()
plain = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
before = used()
try:
    transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
except RuntimeError as error:
    print("mismatch" if "ignore_mismatched_sizes" in str(error) else error, used() - before)
"""


def test_a_bundle_that_claims_more_than_its_file_holds_takes_no_room(copied, run_python):
    change_json(copied / "config.json", edit(memtune__bank__experts=10**8))  # 16 GB
    said, megabytes = run_python(CLAIMS, copied).split()
    assert said == "mismatch" and int(megabytes) < 1000


# --- the backbone


def test_a_checkpoint_in_a_pickle_is_not_opened(checkpoint, tmp_path):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load_backbone(str(copy))


def test_the_code_of_a_checkpoint_is_not_run(checkpoint, tmp_path):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    marker = tmp_path / "ran"
    (copy / "modeling_x.py").write_text(f"open({str(marker)!r}, 'w')\nclass X: pass\n")
    names = {"AutoConfig": "modeling_x.X", "AutoModelForCausalLM": "modeling_x.X"}
    change_json(copy / "config.json", edit(auto_map=names, model_type="unheard_of"))
    with pytest.raises(ModelError):
        load_backbone(str(copy))
    assert not marker.exists()


# --- the sources

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "numpy.lib.format"}


def sources():
    """memtune, what a bundle carries, and the kernels."""
    kernels = Path(__file__).parents[1] / "kernels" / "torch-ext"
    found = [path for root in (SOURCES, kernels) for path in (*root.rglob("*.py"), *root.rglob("*.py.in"))]
    assert len(found) > 60
    return found


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8").replace("{backbone}", "Backbone"))


def called(node):
    """``name`` and ``module.name`` of a call."""
    if isinstance(node.func, ast.Attribute):
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        return node.func.attr, f"{owner}.{node.func.attr}"
    return (node.func.id, node.func.id) if isinstance(node.func, ast.Name) else ("", "")


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_no_source_unpickles_or_runs_text(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            assert not names & FORBIDDEN_MODULES, (path, node.lineno)
        if isinstance(node, ast.Call):
            name, whole = called(node)
            plain = isinstance(node.func, ast.Name) or whole in ("os.system", "os.popen", "builtins.eval")
            assert not (plain and name in FORBIDDEN_CALLS), (path, node.lineno)
            assert whole not in ("torch.load", "np.load", "numpy.load", "torch.hub"), (path, node.lineno)
            assert not any(word.arg in ("allow_pickle", "shell") for word in node.keywords), (path, node.lineno)


def test_code_of_others_is_trusted_in_one_place_where_export_asks_its_own_bundle():
    """Everywhere else it is text for the user: the command that loads a bundle."""
    places = [
        (path.name, node.lineno)
        for path in sources()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and ast.unparse(node.value) != "False"
    ]
    assert [name for name, _ in places] == ["ask.py"]


def test_weights_are_read_from_safetensors_alone():
    """GGUF apart, which transformers reads by itself."""
    for path in sources():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and called(node)[1] == "AutoModelForCausalLM.from_pretrained":
                words = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                assert words.get("use_safetensors") is True or "gguf_file" in words, (path, node.lineno)


def test_a_sound_config_survives_the_checks(memory):
    assert MemoryConfig.from_dict(json.loads(json.dumps(memory.config.to_dict()))) == memory.config
