"""The contract of the command line: exit codes, what goes to stdout, and what every kind of mistake says."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from memtune import __version__
from memtune.baseline import Baseline
from memtune.cli import app, main
from memtune.config import Config
from memtune.errors import DataError, ModelError, ProjectError
from memtune.evaluate import Scope
from memtune.events import Learned, Note
from memtune.evidence.rewinding.guard import GuardResult, Rewind, Tree
from memtune.evidence.rewinding.meter import Spent
from memtune.evidence.rewinding.rewind import Judgement
from memtune.export import ExportResult
from memtune.ingest import Confusable, IngestResult
from memtune.measures import Failure, Measure, Outcome
from memtune.plan import PlannedShard, PlanResult
from memtune.probe import ProbeResult, TokenProbability
from memtune.report import EvalResult, Floor, Floors, Promise
from memtune.suites import QuestionFiles
from memtune.teaching import FailedFact
from memtune.tune import TuneResult

HOSTILE = "[/b] [str] :100: \x1b[31m \u202e"
SHOWN = "[/b] [str] :100: \\x1b[31m \\u202e"
INGESTED = IngestResult(
    facts=72,
    wordings=85,
    answer_tokens=1234,
    experts=1234,
    bytes=4 << 20,
    added=72,
    changed=0,
    removed=0,
    kept=3,
    rebuilt=True,
    model="smollm2",
    model_reason="float32 on cpu",
    threshold=0.8,
    expected_recall=0.993,
    expected_false_fire=0.01,
    confusable=tuple(Confusable(f"one {n} {HOSTILE}", "other", 0.9 - n / 5) for n in range(7)),
    example=f"user\n{HOSTILE}",
)
TUNED = TuneResult(
    facts=72,
    learned=72,
    already=0,
    until_loss=0.01,
    loss_median=0.001,
    loss_max=0.009,
    worst_token=0.02,
    verified=16,
    verified_exact=16,
    seconds=12.3,
    interrupted=False,
    failed=(),
)
PROBED = ProbeResult(
    question="q?",
    answer="The answer.",
    base_answer="No idea.",
    fired=True,
    fact_id="f-1",
    score=2.5,
    threshold=0.8,
    experts=(10, 19),
    token_probs=(TokenProbability("The", 0.99), TokenProbability(" answer", 0.5)),
)
FAILURE = Failure(f"q? {HOSTILE}", "right", "wrong", "f-2", 2.0, 0.8, "fact f-2 fired")
EVALUATED = EvalResult(
    project=".memtune",
    model="smollm2",
    fingerprint="abc",
    versions={"memtune": __version__},
    seed=0,
    verify="sample",
    sample=300,
    longest=32,
    files=(),
    facts=72,
    learned=72,
    until_loss=0.01,
    threshold=0.8,
    measures=(
        Measure.of("exact", "tuned wording", "recall", "stored", [Outcome(9.0, True, True, True)] * 72),
        Measure.of(
            "near-miss", "near miss", "unchanged", "given", [Outcome(2.0, False, True, True, None, FAILURE)] * 2
        ),
    ),
    promises=(
        Promise("recall", "exact", 0.97, 1.0, 0.95, 1.0, True),
        Promise("false fire", "near-miss", 0.01, 1, 0.34, 1, False),
    ),
    floors=(),
    losses=(0.001,) * 72,
    notes=(),
    seconds=12.3,
    page=f"out/{HOSTILE}/eval.html",
    json="out/eval.json",
)
MET = Floor("--min-exact", "exact", 1.0, 72, 72, 1.0, True)
MISSED = (
    Floor("--min-recall", "paraphrase", 0.99, 296, 300, 296 / 300, False),
    Floor("--min-near-miss", "near-miss", 0.99, 0, 2, 0.0, False),
)
EXPORTED = ExportResult(
    format="bundle", directory="out", bytes=1 << 29, memory_bytes=1 << 22, facts=72, asked=72, exact=72, lost=()
)
PLANNED = PlanResult(
    facts=72,
    already=3,
    shards=tuple(PlannedShard(f"{n}/2", 36, HOSTILE, "f-9", 600, 1 << 20, 40.0 + n) for n in (1, 2)),
    seconds=42.0,
    alone=83.0,
    timed=69,
    timed_seconds=20.5,
    load_seconds=3.2,
    bank_bytes=2 << 20,
)
COMMANDS = ["ingest", "tune", "plan", "merge", "probe", "eval", "export"]
FUNCTIONS = {"eval": "memtune.evaluate.evaluate"}  # eval is a word of Python
USE = {"ingest": ["ingest", "facts.jsonl"], "tune": ["tune"], "probe": ["probe", "q?"], "export": ["export", "out"]}
USE |= {command: [command] for command in ("eval", "merge", "plan")}
RESULTS = {"ingest": INGESTED, "tune": TUNED, "probe": [PROBED], "eval": EVALUATED, "export": EXPORTED}
RESULTS |= {"merge": TUNED, "plan": PLANNED}

ENDLESS = """
import dataclasses, itertools, sys, types
from memtune.cli import main

answer = dataclasses.make_dataclass("Answer", ["question"])("q")
sys.modules["memtune.probe"] = types.SimpleNamespace(probe=lambda *_, **__: itertools.repeat(answer))
sys.argv = ["memtune", "probe", "q", "--json"]
main()
"""

Verbs = dict[str, Any]


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Verbs:
    """The verbs of the library do nothing here but note how they were called; an exception as result is raised."""
    monkeypatch.chdir(tmp_path)
    found: Verbs = {"results": dict(RESULTS)}

    def stand_in(verb: str) -> Callable[..., Any]:
        def call(*args: Any, on_event: Callable[[Any], None], **kwargs: Any) -> Any:
            found[verb] = (args, kwargs)
            on_event(Note("working"))
            result = found["results"][verb]
            if isinstance(result, BaseException):
                raise result
            return result

        return call

    for verb in COMMANDS:
        monkeypatch.setattr(FUNCTIONS.get(verb, f"memtune.{verb}.{verb}"), stand_in(verb))
    return found


def run(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, args, input=stdin, prog_name="memtune")


def run_main(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["memtune", *args])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code is None or isinstance(caught.value.code, int)
    return caught.value.code or 0


def failed(count: int) -> TuneResult:
    facts = tuple(FailedFact(f"f-{n}", f"q {n} {HOSTILE}", f"facts.jsonl:{n}", "reason", 0.5) for n in range(count))
    return replace(TUNED, learned=72 - count, failed=facts)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def python(code: str) -> None:
    """Runs the code in a fresh process."""
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, stdout=subprocess.DEVNULL)


# --- help and start-up


# What takes longer to import than all that help needs: with none of them it comes in a fifth of a second.
HEAVY = {"torch", "transformers", "peft", "numpy", "safetensors", "rich.markdown", "sqlite3"}


@pytest.mark.parametrize("words", [[], ["--help"], ["tune", "--help"]])
def test_help_imports_nothing_that_takes_long(words: list[str]) -> None:
    python(
        f"import sys; sys.argv = ['memtune', *{words}]; from memtune.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


def test_the_main_job_is_listed_first() -> None:
    listed = re.findall(r"^  (\w+)  ", run("--help").stdout.split("Commands:")[1], flags=re.MULTILINE)
    assert listed[:5] == ["ingest", "tune", "probe", "eval", "export"]
    assert set(listed) >= {"plan", "merge", "know", "capacity", "score", "detect", "audit", "facts"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_the_shared_options_and_examples(command: str, flag: str) -> None:
    result = run(command, flag)
    assert result.exit_code == 0
    for text in ("--project DIR", "MEMTUNE_PROJECT", "--config FILE", "--json", "-q, --quiet", "Examples:"):
        assert text in result.stdout
    assert f"\n    memtune {command}" in result.stdout or "| memtune ingest" in result.stdout


def test_version_goes_to_stdout_and_a_bare_call_shows_help_as_a_mistake() -> None:
    assert run("--version").stdout == f"memtune {__version__}\n"
    for words in ([], ["facts"]):
        bare = run(*words)
        assert (bare.exit_code, bare.stdout) == (2, "")
        assert bare.stderr.startswith("Usage: memtune") and "Commands:" in bare.stderr


def test_the_help_of_a_bare_call_is_no_error_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "facts") == 2
    assert capsys.readouterr().err == run("facts", "--help").stdout


# --- exit codes


@pytest.mark.parametrize("command", COMMANDS)
def test_0_done_with_nothing_but_data_on_stdout(command: str) -> None:
    result = run(*USE[command])
    assert result.exit_code == 0
    assert result.stdout == ("The answer.\n" if command == "probe" else "")
    assert "working" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_1_an_unexpected_failure_is_short_and_says_how_to_see_more(command: str, calls: Verbs) -> None:
    calls["results"][command] = ZeroDivisionError("by zero")
    result = run(*USE[command], "--json")
    assert result.exit_code == 1
    assert "error: ZeroDivisionError: by zero\nhint:  MEMTUNE_DEBUG=1 shows where it happened\n" in result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads(result.stdout)["exit_code"] == 1


def test_1_with_memtune_debug_shows_the_traceback(calls: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    calls["results"]["tune"] = ZeroDivisionError("by zero")
    monkeypatch.setenv("MEMTUNE_DEBUG", "1")
    result = run("tune")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and "test_cli.py" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", [DataError, ModelError, ProjectError])
def test_2_an_error_of_the_library_is_told_with_its_hint(command: str, kind: type, calls: Verbs) -> None:
    problem = ["facts.jsonl:3: bad", "facts.jsonl:4: worse"] if kind is DataError else "facts.jsonl:3: bad"
    calls["results"][command] = kind(problem, hint="fix it")
    result = run(*USE[command], "--json")
    assert result.exit_code == 2
    assert "error: facts.jsonl:3: bad\n" in result.stderr and "hint:  fix it\n" in result.stderr
    message = "\n".join(problem) if isinstance(problem, list) else problem
    assert json.loads(result.stdout) == {"error": message, "hint": "fix it", "exit_code": 2}


@pytest.mark.parametrize("args", [["tune", "--unti-loss", "1"], ["ingest"], ["tun"], ["tune", "--seed", HOSTILE]])
def test_2_a_usage_error_looks_like_every_other(
    args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *args, "--json") == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and "--help\n" in err and "\x1b" not in err
    assert set(json.loads(out)) == {"error", "hint", "exit_code"}


@pytest.mark.parametrize("command", COMMANDS)
def test_2_a_path_that_the_machine_refuses_is_named(command: str, calls: Verbs) -> None:
    calls["results"][command] = OSError(errno.ENAMETOOLONG, "File name too long", f"x{HOSTILE}")
    result = run(*USE[command])
    assert (result.exit_code, "Traceback" in result.stderr) == (2, False)
    assert f"error: x{SHOWN}: File name too long\nhint:  name a path that can be read and written\n" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_1_a_full_disk_is_nobodys_mistake(command: str, calls: Verbs) -> None:
    calls["results"][command] = OSError(errno.ENOSPC, "No space left on device", "x")
    assert run(*USE[command]).exit_code == 1


def test_2_names_of_300_letters_are_refused_everywhere(
    monkeypatch: pytest.MonkeyPatch, tuned: Path, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    long, project = "x" * 300, ["--project", str(tuned)]
    uses = [["ingest", long], ["tune", "--project", long], ["probe", "--file", long], ["export", long, *project]]
    uses += [["eval", "--out", long, *project], ["eval", "--near-miss", long, *project], ["tune", "--config", long]]
    for use in uses:
        result = run(*use)
        assert result.exit_code == 2, use
        assert "File name too long" in result.stderr
    assert not list(tmp_path.iterdir())


def test_2_a_question_of_bytes_that_are_no_text_is_refused(calls: Verbs) -> None:
    result = run("probe", "caf\udce9 \x1b[31m")
    assert result.exit_code == 2 and "probe" not in calls
    assert "error: the question holds U+DCE9, which is no text: 'caf\\udce9 \\x1b[31m'\n" in result.stderr


@pytest.mark.parametrize("args", [[], ["q?", "--file", "f.jsonl"]])
def test_2_probe_wants_one_question_or_one_file(args: list[str]) -> None:
    result = run("probe", *args)
    assert result.exit_code == 2
    assert "error: probe takes either one question or --file FILE" in result.stderr


@pytest.mark.parametrize(
    "flags", [["--until-loss", "nan"], ["--until-loss", "5"], ["--verify", "some"], ["--seed", "-1"]]
)
def test_2_a_flag_out_of_range_calls_nothing(flags: list[str], calls: Verbs) -> None:
    result = run("tune", *flags)
    assert result.exit_code == 2
    assert "takes" in result.stderr and "tune" not in calls


def test_3_facts_that_were_not_learned_are_listed_up_to_twenty(calls: Verbs) -> None:
    calls["results"]["tune"] = failed(23)
    result = run("tune")
    assert result.exit_code == 3
    assert "error: 23 of 72 facts were not learned:\n" in result.stderr
    assert (
        "       facts.jsonl:19: 'q 19 [/b] [str] :100: \\x1b[31m \\u202e': reason\n       and 3 more\n" in result.stderr
    )
    assert "facts.jsonl:20" not in result.stderr and "next:" not in result.stderr


def test_3_facts_that_the_bundle_lost_are_listed(calls: Verbs) -> None:
    calls["results"]["export"] = replace(EXPORTED, exact=70, lost=("f-1", "f-2"))
    result = run("export", "out", "--quiet")
    assert result.exit_code == 3
    assert "2 of 72 facts are not answered exactly by the bundle:\n       f-1\n       f-2\n" in result.stderr


def test_3_every_floor_that_was_missed_is_named_with_its_figures(calls: Verbs) -> None:
    calls["results"]["eval"] = replace(EVALUATED, floors=(MET, *MISSED))
    result = run("eval")
    assert result.exit_code == 3
    assert "error: 2 floors were missed:\n" in result.stderr
    assert "--min-recall 0.99: paraphrase 296 of 300 (98.67%)\n" in result.stderr
    assert "--min-near-miss 0.99: near-miss 0 of 2 (0.00%)\n" in result.stderr
    assert "--min-exact" not in result.stderr
    calls["results"]["eval"] = replace(EVALUATED, floors=(MET,))
    assert run("eval").exit_code == 0


@pytest.mark.parametrize("command", ["tune", "merge", "eval", "export"])
def test_3_the_json_is_the_result_and_says_so(command: str, calls: Verbs) -> None:
    lost = {"tune": failed(1), "merge": failed(1), "export": replace(EXPORTED, exact=71, lost=("f-1",))}
    lost["eval"] = replace(EVALUATED, floors=MISSED)
    calls["results"][command] = lost[command]
    result = run(*USE[command], "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["met"] is False


def test_130_an_interrupted_tune_shows_what_is_done_and_how_to_go_on(
    calls: Verbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls["results"]["tune"] = replace(TUNED, learned=40, interrupted=True)
    monkeypatch.setattr(sys, "argv", ["memtune", "tune", "--project", "my project"])
    result = run("tune", "--project", "my project")
    assert result.exit_code == 130
    assert "40 of 72 facts" in result.stderr
    assert "hint:  go on with: memtune tune --project 'my project'\n" in result.stderr
    assert json.loads(run("tune", "--json").stdout)["interrupted"] is True


@pytest.mark.parametrize("command", COMMANDS)
def test_130_an_interrupt_anywhere_is_told_without_a_traceback(command: str, calls: Verbs) -> None:
    calls["results"][command] = KeyboardInterrupt()
    result = run(*USE[command], "--json")
    assert result.exit_code == 130
    assert "error: interrupted; the last finished state is kept\n" in result.stderr
    assert json.loads(result.stdout)["exit_code"] == 130


# --- stdout and stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_object_on_stdout(command: str) -> None:
    result = run(*USE[command], "--json")
    assert result.exit_code == 0
    assert isinstance(json.loads(result.stdout), dict)
    assert "next:" not in result.stderr


def test_json_of_a_probed_file_is_one_object_a_line(calls: Verbs) -> None:
    Path("questions.txt").write_text("one\ntwo\n")
    calls["results"]["probe"] = [PROBED, replace(PROBED, fired=False, fact_id=None, experts=None)]
    result = run("probe", "--file", "questions.txt", "--json")
    first, second = map(json.loads, result.stdout.splitlines())
    keys = "question answer base_answer fired fact_id score threshold experts token_probs"
    assert list(first) == list(second) == keys.split()
    assert (first["experts"], second["fact_id"]) == ([10, 19], None)
    assert first["token_probs"][0] == {"token": "The", "probability": 0.99}
    assert calls["probe"][0][0] == ["one", "two"]


def guarded(**changes: Any) -> GuardResult:
    bad, good = Judgement(-1.0, f"contradicted by f-1: {HOSTILE}", "f-1"), Judgement(1.0, "supported by f-1", "f-1")
    rewinds = tuple(Rewind("It is" if n else "", f"{n} {HOSTILE}", -1.0, bad.why) for n in range(25))
    tree, cost, plain = Tree(24, 3, 2, 40, 5, 1), Spent(120, 3456, 9.0), Spent(20, 60, 2.0)
    found = GuardResult("q?", "The answer.", "store", good, "Wrong.", bad, None, rewinds, tree, cost, plain, 4.5)
    return replace(found, **changes)


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Verbs:
    """What the guard finds, and how it was called."""
    found: Verbs = {"results": [guarded()]}

    def call(*args: Any, **kwargs: Any) -> Any:
        found["guard"] = (args, kwargs)
        return iter(found["results"])

    monkeypatch.setattr("memtune.evidence.rewinding.guard.guard", call)
    return found


def test_a_guarded_answer_is_the_output_and_its_rewinds_are_listed(guards: Verbs, calls: Verbs) -> None:
    result = run("probe", "q?", "--guard", "store")
    assert (result.exit_code, result.stdout) == (0, "The answer.\n")
    assert guards["guard"][0] == (["q?"], Path(".memtune"), "store")
    assert "probe" not in calls
    shown = " ".join(result.stderr.split())
    assert "25 rewinds" in shown and "and 5 more" in shown
    assert "120 model calls, 3,456 tokens, 9.0 s: 4.5 times the plain answer" in shown
    assert "tries 24; token sets 3, fixed early 2; nodes 40; scores shared 5; children added 1" in shown
    assert HOSTILE not in result.stderr


def test_what_the_guard_did_not_touch_is_shown_without_a_tree(guards: Verbs) -> None:
    guards["results"] = [guarded(rewinds=(), tree=None)]
    shown = run("probe", "q?", "--guard", "store").stderr
    assert "rewinds" not in shown and "tree" not in shown


def test_json_of_a_guarded_answer_holds_every_rewind(guards: Verbs) -> None:
    result = json.loads(run("probe", "q?", "--guard", "store", "--json").stdout)
    assert len(result["rewinds"]) == 25
    assert result["rewinds"][9] == asdict(guarded().rewinds[9])
    assert (result["met"], result["tree"]["tries"], result["ratio"]) == (True, 24, 4.5)


def test_3_an_answer_that_the_guard_still_objects_to(guards: Verbs) -> None:
    guards["results"] = [guarded(), guarded(judged=guarded().plain_judged)]
    result = run("probe", "q?", "--guard", "self")
    assert result.exit_code == 3
    assert "do not pass the guard" in result.stderr and "contradicted by f-1" in result.stderr
    written = [json.loads(line) for line in run("probe", "q?", "--guard", "self", "--json").stdout.splitlines()]
    assert [one["met"] for one in written] == [True, False]


def test_2_an_unknown_guard_is_named_before_anything_is_done(calls: Verbs) -> None:
    result = run("probe", "q?", "--guard", "web")
    assert result.exit_code == 2
    assert "guard 'web' is unknown" in result.stderr and "store, likelihood, self" in result.stderr


def test_a_failure_amid_a_probed_file_is_the_last_line(calls: Verbs) -> None:
    def breaks() -> Iterator[ProbeResult]:
        yield PROBED
        raise ModelError("the model broke", hint="mend it")

    calls["results"]["probe"] = breaks()
    result = run("probe", "q?", "--json")
    assert result.exit_code == 2
    assert [next(iter(json.loads(line))) for line in result.stdout.splitlines()] == ["question", "error"]


def test_a_loss_that_was_never_measured_is_null_in_json(calls: Verbs) -> None:
    calls["results"]["tune"] = replace(TUNED, learned=0, loss_median=float("inf"))
    assert json.loads(run("tune", "--json").stdout, parse_constant=pytest.fail)["loss_median"] is None


@pytest.mark.parametrize("command", COMMANDS)
def test_quiet_says_nothing(command: str) -> None:
    result = run(*USE[command], "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == ("The answer.\n" if command == "probe" else "")


def test_quiet_does_not_hide_errors(calls: Verbs) -> None:
    calls["results"]["ingest"] = DataError(["facts.jsonl:3: bad"])
    calls["results"]["tune"] = failed(1)
    assert run("ingest", "facts.jsonl", "-q").stderr == "error: facts.jsonl:3: bad\n"
    assert "facts.jsonl:0: 'q 0" in run("tune", "-q").stderr


def test_hostile_text_reaches_no_terminal_and_is_no_markup(calls: Verbs) -> None:
    probed = replace(PROBED, question=HOSTILE, base_answer=HOSTILE, fact_id=HOSTILE)
    calls["results"]["probe"] = [replace(probed, token_probs=(TokenProbability(HOSTILE, 1.0),))]
    calls["results"] |= {command: ModelError(HOSTILE, hint=HOSTILE) for command in ("tune", "merge")}
    calls["results"]["export"] = replace(EXPORTED, directory=HOSTILE)
    for command in COMMANDS:
        result = run(*USE[command])
        assert not {"\x1b", "\u202e"} & set(result.stderr)
        assert SHOWN in " ".join(result.stderr.split()) or SHOWN.replace(" ", "␣") in result.stderr


def test_piped_an_answer_is_exact_and_on_a_terminal_it_is_harmless(
    calls: Verbs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls["results"]["probe"] = [replace(PROBED, answer=f"one\n{HOSTILE}")]
    assert run("probe", "q?").stdout == f"one\n{HOSTILE}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run_main(monkeypatch, "probe", "q?")
    assert capsys.readouterr().out == f"one\n{SHOWN}\n"


def test_progress_of_the_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any, on_event: Callable[[Any], None]) -> TuneResult:
        for done in range(73):
            on_event(Learned(done, 72, 0.1, 0.2, 0.3, ()))
        return TUNED

    monkeypatch.setattr("memtune.tune.tune", slow)
    lines = [line for line in run("tune").stderr.splitlines() if line.startswith("learned ")]
    assert [line.split(",")[0] for line in lines[:2]] == ["learned 0/72", "learned 72/72"]


def test_the_ingest_summary_shows_what_the_router_will_do() -> None:
    text = run("ingest", "facts.jsonl").stderr
    shown = " ".join(text.split())
    assert "72, 85 wordings, 1,234 answer tokens; 3 unchanged, kept as tuned" in shown
    assert "1,234 experts, 4.0 MiB" in shown
    assert "threshold 0.80, expected: fires on 99.3% of rewordings and 1.0% of near misses" in shown
    assert "0.90 warning: taken for one another: one 0" in shown
    assert "0.70 told apart: one 1" in shown
    assert "one 4" in shown and "one 5" not in shown
    assert f"the first fact as the model reads it: user {SHOWN} next:" in shown
    assert text.endswith("next:  memtune tune\n")
    Path("other.yaml").write_text("until_loss: 0.5\n")
    assert "next:  memtune tune --config other.yaml" in run("ingest", "facts.jsonl", "--config", "other.yaml").stderr


def test_probe_says_why_it_answered_so(calls: Verbs) -> None:
    shown = " ".join(run("probe", "q?").stderr.split())
    assert "f-1 (score 2.50, threshold 0.80), experts 10 to 19" in shown
    assert "The=99.0% ␣answer=50.0%" in shown
    assert "No idea." in shown
    calls["results"]["probe"] = [replace(PROBED, fired=False, fact_id=None, experts=None)]
    assert "no fact (score 2.50, threshold 0.80)" in run("probe", "q?").stderr


def test_eval_shows_every_measure_with_its_interval_and_whether_promises_held() -> None:
    shown = " ".join(run("eval").stderr.split())
    assert "tuned wording stored 72 of 72 100.0% 94.9% to 100.0%" in shown
    assert "near miss given 0 of 2 0.0% 0.0% to 65.8%" in shown
    assert "recall ingest expected 97.0%, measured 100.0% (exact): held" in shown
    assert "false fire ingest expected 1.0%, measured 100.0% (near-miss): not held" in shown


# --- settings and the project


def test_flags_reach_the_library(calls: Verbs) -> None:
    flags = "--model m --false-fire 0.02 --question-key Q --answer-key A --seed 3 --device cpu --dtype float32"
    flags += " --rows float32 --rebuild"
    assert run("ingest", "f.csv", *flags.split(), "--project", "p").exit_code == 0
    settings = Config(model="m", false_fire=0.02, seed=3, device="cpu", dtype="float32", rows="float32")
    options = {"question_key": "Q", "answer_key": "A", "rebuild": True}
    assert calls["ingest"] == (("f.csv", Path("p"), settings), options)


def test_the_options_of_eval_reach_the_library(calls: Verbs) -> None:
    flags = "--paraphrases p --near-miss n --unrelated u --sample 5 --longest 6 --verify all --out o --seed 3"
    flags += " --baseline rag --notes 2"
    floors = "--min-recall 0.1 --min-exact 0.2 --min-near-miss 0.3 --min-unrelated 0.4"
    assert run("eval", *flags.split(), *floors.split(), "--project", "d").exit_code == 0
    assert calls["eval"][0] == (Path("d"), Config(verify="all", seed=3))
    assert calls["eval"][1] == {
        "files": QuestionFiles(Path("p"), Path("n"), Path("u")),
        "floors": Floors(0.1, 0.2, 0.3, 0.4),
        "scope": Scope(5, 6),
        "baseline": Baseline("rag", 2),
        "out": Path("o"),
    }


@pytest.mark.parametrize("flags", [["--min-recall", "99"], ["--sample", "-1"], ["--longest", "0"], ["--notes", "0"]])
def test_2_eval_refuses_impossible_options(flags: list[str], calls: Verbs) -> None:
    result = run("eval", *flags)
    assert result.exit_code == 2
    assert f"{flags[0]} takes a" in result.stderr and "eval" not in calls


def test_a_flag_wins_over_the_file_and_the_file_is_named(calls: Verbs) -> None:
    Path("memtune.yaml").write_text("until_loss: 1e-4\nverify: none\n")
    result = run("tune", "--verify", "all")
    assert "settings: memtune.yaml\n" in result.stderr
    assert calls["tune"][0][1] == Config(until_loss=0.0001, verify="all")


def test_config_names_another_file(calls: Verbs) -> None:
    Path("elsewhere").mkdir()
    Path("elsewhere/other.yaml").write_text("seed: 5\n")
    assert run("tune", "--config", "elsewhere/other.yaml").exit_code == 0
    assert calls["tune"][0][1].seed == 5
    assert run("tune", "--config", "nowhere/memtune.yaml").exit_code == 2


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("until_los: 0.1", "unknown key 'until_los'"),
        ("seed: 1\nseed: 2", "the key 'seed' stands twice"),
        ("model: no", "model is False, expected str"),
    ],
)
def test_a_mistake_in_the_settings_stops_every_command(command: str, text: str, message: str, calls: Verbs) -> None:
    Path("memtune.yaml").write_text(text)
    result = run(*USE[command])
    assert result.exit_code == 2
    assert message in result.stderr and "hint:" in result.stderr
    assert command not in calls


def test_the_project_is_an_option_or_an_environment_variable_or_here(
    calls: Verbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wanted, options in ((".memtune", []), ("by option", ["--project", "by option"])):
        shown = run("tune", *options).stderr
        assert calls["tune"][0][0] == Path(wanted)
        assert ("memtune export OUT --project 'by option'\n" in shown) == bool(options)
    monkeypatch.setenv("MEMTUNE_PROJECT", "by env")
    assert "--project" not in run("tune").stderr
    assert calls["tune"][0][0] == Path("by env")


def test_tune_without_a_project_says_what_to_run_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MEMTUNE_PROJECT", "/nowhere/at/all")
    result = run("tune")
    assert result.exit_code == 2
    assert "hint:  run first: memtune ingest FACTS" in result.stderr


# --- standard input


def test_a_dash_is_passed_on_as_standard_input(calls: Verbs) -> None:
    assert run("ingest", "-", stdin="{}").exit_code == 0
    assert calls["ingest"][0][0] == "-"
    assert run("probe", "--file", "-", stdin='{"question": "one"}\n').exit_code == 0
    assert calls["probe"][0][0] == ["one"]


@pytest.mark.parametrize("args", [["ingest", "-"], ["probe", "--file", "-"]])
def test_a_terminal_is_not_waited_for(
    args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert run_main(monkeypatch, *args) == 2
    assert "error: standard input is a terminal\n" in capsys.readouterr().err


def test_a_reader_that_goes_away_gets_no_words() -> None:
    """As in ``memtune probe --file questions.jsonl --json | head -1``."""
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == '{"question": "q"}\n'
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


# --- the whole way, on a tiny checkpoint


def test_a_tuned_project_answers_through_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tuned: Path, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    project = shutil.copytree(tuned, tmp_path / "tuned")
    result = run("probe", "What colours does the flag of Quell have?", "--project", str(project), "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["answer"], said["fact_id"], said["fired"]) == ("Green and gold", "flag", True)


def test_eval_through_the_command_line_writes_its_files_and_then_misses_the_floor(
    monkeypatch: pytest.MonkeyPatch, tuned: Path, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    Path("near.txt").write_text("What colours does the flag of Quell have?\n")  # a stored question: it fires
    options = ["--project", str(tuned), "--out", "out", "--near-miss", "near.txt", "--sample", "2", "--longest", "4"]
    result = run("eval", *options, "--min-near-miss", "1", "--min-exact", "1", "--json")
    assert result.exit_code == 3, result.stderr
    assert "error: 1 floor was missed:\n       --min-near-miss 1: near-miss 0 of 1 (0.00%)\n" in result.stderr
    shown = json.loads(result.stdout)
    assert shown == json.loads(Path("out/eval.json").read_text(encoding="utf-8"))
    assert shown["met"] is False and "</html>" in Path("out/eval.html").read_text(encoding="utf-8")


def test_an_unknown_id_is_told_with_its_line(monkeypatch: pytest.MonkeyPatch, tuned: Path, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    Path("p.jsonl").write_text('{"question": "q?", "id": "flag"}\n{"question": "q?", "id": "nobody"}\n')
    result = run("eval", "--project", str(tuned), "--out", "out", "--paraphrases", "p.jsonl")
    assert result.exit_code == 2
    assert "error: p.jsonl:2: no fact of the project has the id 'nobody'\n" in result.stderr
    assert not Path("out").exists()
