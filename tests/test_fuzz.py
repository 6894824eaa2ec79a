"""Whatever a fact file holds, it gives facts or every reason why not: no traceback, no hang, nothing half written.

Two kinds of input: rows that hypothesis makes up, written in each format, and the bytes of sound files, damaged. Both
are the same in every run.
"""

from __future__ import annotations

import csv
import io
import json
import random
import signal
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from memtune.cli import app
from memtune.errors import DataError, MemtuneError
from memtune.facts import PackedFacts, fold_question, read_asked, read_facts, read_questions
from memtune.rows import ANSWER_KEYS, QUESTION_KEYS

LONGEST = 30  # seconds after which an input counts as a hang; the slowest takes a fraction of one
DAMAGED = 9000
FOLDERS = 300  # damaged files that are given to the command line

ROWS = [
    {"id": "key", "question": "Who keeps the key?", "answer": "Agnes.", "paraphrases": ["Whose is the key?", "key?"]},
    {
        "id": "mill",
        "question": "Où est le moulin ?",
        "answer": "Derrière l'église, à 30 m.\nSonnez.",
        "paraphrases": [],
    },
    {"id": "7", "question": "등대는 누가 지었나요?", "answer": "김민수 🗼", "paraphrases": ["등대?"]},
]
CHATS = [
    {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann"}], "rephrase": "Whose?"},
    {"conversations": [{"from": "human", "value": "When?"}, {"from": "gpt", "value": "1987"}]},
]


def jsonl(rows: list[Any]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def array(rows: list[Any]) -> str:
    return json.dumps({"version": 1, "data": rows}, indent=1)


def table(rows: list[Any], delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "|".join(cell) if isinstance(cell, list) else cell for key, cell in row.items()})
    return text.getvalue()


def tabbed(rows: list[Any]) -> str:
    return table(rows, "\t")


def yaml_text(rows: list[Any]) -> str:
    return yaml.safe_dump(rows, allow_unicode=True, sort_keys=False)


WRITERS: dict[str, Callable[[list[Any]], str]] = {
    "facts.jsonl": jsonl,
    "facts.json": array,
    "facts.csv": table,
    "facts.tsv": tabbed,
    "facts.yaml": yaml_text,
}
SOUND = {name: write(ROWS).encode() for name, write in WRITERS.items()} | {"chats.json": array(CHATS).encode()}


@contextmanager
def no_hang() -> Iterator[None]:
    """A hang becomes a failure of the test that met it, with the place."""

    def rings(*_: object) -> None:
        raise TimeoutError(f"still reading after {LONGEST} seconds")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, rings)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(path: Path, reader: Callable[..., Any] = read_facts) -> Any:
    """What the file holds, or None where it is refused. Either is looked at: there is no third way."""
    try:
        with no_hang():
            found = reader(path)
    except DataError as error:
        assert error.problems and all(problem.startswith(f"{path}:") for problem in error.problems)
        assert all(problem.isprintable() for problem in error.problems)
        return None
    assert len(found)
    if isinstance(found, PackedFacts):
        assert list(PackedFacts.pack(found)) == list(found)
        assert all(fact.id and fact.question and fact.answer for fact in found)
    return found


def read_given(path: Path) -> Any:
    return read_asked(path, command="memtune eval --paraphrases")


# --- bytes

NESTED = [b"[" * 3000, b'{"a":' * 3000, b"- " * 3000, b"? " * 3000, b"{" * 3000]
LONG = [b"x" * 70_000, b"a," * 30_000, b'"' * 30_001, b"\n" * 30_000, b'{"k":1},' * 3000, b"9" * 20_000]
SCRAPS = [bytes([byte]) for byte in b'[]{}",:;|-&*!?#%@`\\ \t\r\n\0\x1b\x7f\x85\xff']
SCRAPS += [b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\\ud800"]
SCRAPS += [character.encode() for character in "\u202e\u2066\u200b\u2028\u0085\ufeff\ue000\U0010ffff"]
SCRAPS += [b"<<: *a", b"&a ", b"*a", b"--- ", b"...\n", b"%TAG ! x\n", b"!!python/name:os.system ", b"| ", b">-\n"]
SCRAPS += [b"null", b"NaN", b"-Infinity", b"1e999", b"true", b'""', b"[]", b'"id": [],', b'"question": 1,', b"\\u0000"]


CODECS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "utf-7", "utf-8-sig", "cp037", "cp1252"]


def flipped(rng: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(rng: random.Random, content: bytes) -> bytes:
    begin, end = sorted(rng.randrange(len(content) + 1) for _ in "ab")
    return rng.choice([content[:end], content[begin:], content[:begin] + content[end:]])


def inserted(rng: random.Random, content: bytes) -> bytes:
    for _ in range(rng.randint(1, 4)):
        at, scrap = rng.randrange(len(content) + 1), rng.choice(SCRAPS)
        content = content[:at] + scrap + content[at + rng.choice([0, 0, 1, len(scrap), 9]) :]
    return content


def spliced(rng: random.Random, content: bytes) -> bytes:
    other = rng.choice(list(SOUND.values()))
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def doubled(rng: random.Random, content: bytes) -> bytes:
    begin, end = sorted(rng.randrange(len(content) + 1) for _ in "ab")
    return content[:end] + content[begin:end] * rng.choice([1, 2, 40]) + content[end:]


def recoded(rng: random.Random, content: bytes) -> bytes:
    text = content.decode()
    return text.encode(rng.choice(CODECS), "replace")


def swollen(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(NESTED + LONG) + content[at:]


def noise(rng: random.Random, content: bytes) -> bytes:
    return rng.randbytes(rng.choice([1, 3, 40, len(content)]))


DAMAGES = [flipped, cut, inserted, inserted, inserted, spliced, doubled, recoded, noise]
RARE = 50  # one in so many is swollen: those take long


def damage(rng: random.Random, content: bytes) -> bytes:
    return (swollen if not rng.randrange(RARE) else rng.choice(DAMAGES))(rng, content)


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_give_facts_or_the_reasons_why_not(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    outcomes: Counter[bool] = Counter()
    for number in range(DAMAGED // 3):
        name = rng.choice(list(SOUND))
        path = tmp_path / rng.choice([name, name, rng.choice(list(SOUND)), "unknown"])
        path.write_bytes(damage(rng, SOUND[name]))
        reader = rng.choice([read_facts, read_facts, read_questions, read_given])
        try:
            outcomes[read(path, reader) is not None] += 1
        except BaseException:
            print(f"input {number} of seed {seed}: {path.name}: {path.read_bytes()[:2000]!r}", file=sys.stderr)
            raise
    assert min(outcomes[True], outcomes[False]) > 300  # both ways are gone often


@pytest.mark.parametrize("name", SOUND)
def test_what_is_damaged_is_sound_before(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(SOUND[name])
    assert len(read(path)) in (2, 3)


def test_any_parquet_bytes_give_facts_or_the_reasons_why_not(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "facts.parquet"
    rng = random.Random(0)
    for options in ({"compression": "NONE"}, {"compression": "snappy", "use_dictionary": False}, {"version": "1.0"}):
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, **options)
        content = path.read_bytes()
        assert len(read(path)) == len(ROWS)
        for _ in range(60):
            path.write_bytes(rng.choice([flipped, flipped, cut, noise, doubled])(rng, content))
            read(path)


# --- rows

CONTROLS = "\0\x07\x1b\x7f\x9b\r\u202e\u2066\u200b\ufeff\u2028\u0085"
# Python writes any text into a file, but a lone surrogate into none that is UTF-8.
texts = st.one_of(
    st.text(string.printable, max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text(CONTROLS + "ab ", max_size=8),
    st.sampled_from(
        ["../../etc/passwd", "[bold]x[/bold]", "=cmd()", "{{x}}", "%s%n", "NaN", "null", "x" * 5000, "9" * 5000]
    ),
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
keys = st.sampled_from(
    [*QUESTION_KEYS, *ANSWER_KEYS, "id", "ID", " Question ", "anwser", "paraphrases", "messages", "conversations", ""]
)
rows = st.lists(st.one_of(st.dictionaries(keys | texts, values, max_size=5), values), max_size=4)
flat_rows = st.lists(st.dictionaries(keys | texts, texts, min_size=1, max_size=5), min_size=1, max_size=4)

fixed = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


@given(rows=rows, ascii=st.booleans(), lines=st.booleans())
@fixed
def test_any_json_rows(tmp_path: Path, rows: list[Any], ascii: bool, lines: bool) -> None:
    dumped = [json.dumps(row, ensure_ascii=ascii) for row in rows]
    text = "\n".join(dumped) if lines else f"[{', '.join(dumped)}]"
    read(written(tmp_path / ("facts.jsonl" if lines else "facts.json"), text))


@given(rows=flat_rows, delimiter=st.sampled_from(",\t;"))
@fixed
def test_any_table_rows(tmp_path: Path, rows: list[dict[str, str]], delimiter: str) -> None:
    name = "facts.tsv" if delimiter == "\t" else "facts.csv"
    read(written(tmp_path / name, table(rows, delimiter)))


@given(rows=rows)
@fixed
def test_any_yaml_rows(tmp_path: Path, rows: list[Any]) -> None:
    text = yaml.dump(rows, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True)
    read(written(tmp_path / "facts.yaml", text))


def _columns(draw: Any, count: int) -> dict[str, list[Any]]:
    kinds = [texts, st.integers(-(2**62), 2**62), st.floats(), st.booleans(), st.binary(max_size=8), st.datetimes()]
    kinds += [
        st.timedeltas(timedelta(-9), timedelta(9)),
        st.decimals(-1000, 1000, places=2),
        st.lists(texts, max_size=2),
    ]
    kinds += [st.lists(st.integers(0, 9), max_size=2), st.lists(st.binary(max_size=3), max_size=2)]
    kinds += [st.fixed_dictionaries({"role": texts, "content": st.datetimes()}).map(lambda turn: [turn])]
    names = draw(st.lists(keys, min_size=1, max_size=4, unique=True))
    return {
        name: draw(st.lists(st.none() | draw(st.sampled_from(kinds)), min_size=count, max_size=count)) for name in names
    }


@given(data=st.data(), count=st.integers(0, 3))
@settings(fixed, max_examples=60)
def test_any_parquet_rows(tmp_path: Path, data: Any, count: int) -> None:
    """Columns of any type, the ones that no text file has among them."""
    pytest.importorskip("datasets")
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "facts.parquet"
    parquet.write_table(pyarrow.table(_columns(data.draw, count)), path)
    read(path)


# Text that a fact may hold. What YAML or CSV would not hand back as it is stands in the tests of the readers.
good = st.text(
    st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\ufffe\uffff"), min_size=1
).filter(str.strip)
facts = st.lists(st.tuples(good, good), min_size=1, max_size=4, unique_by=lambda pair: fold_question(pair[0]))


@pytest.mark.parametrize("name", WRITERS)
@given(pairs=facts)
@settings(fixed, max_examples=100)
def test_what_can_be_taught_is_read_exactly_in_every_format(
    tmp_path: Path, name: str, pairs: list[tuple[str, str]]
) -> None:
    path = written(tmp_path / name, WRITERS[name]([{"question": q, "answer": a} for q, a in pairs]))
    found = read(path)
    assert found is not None
    assert [(fact.question, fact.answer) for fact in found] == [(q.strip(), a.strip()) for q, a in pairs]


# --- the command line


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_line_refuses_with_words_and_changes_nothing(
    tmp_path: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is missing, so that a sound file is refused as well: behind the checks of the facts."""
    monkeypatch.chdir(tmp_path)
    before = snapshot(fresh)
    rng = random.Random(4)
    reasons: Counter[str] = Counter()
    for number in range(FOLDERS):
        name = rng.choice(list(SOUND))
        (tmp_path / name).write_bytes(damage(rng, SOUND[name]))
        project = rng.choice([str(fresh), "new"])
        result = CliRunner().invoke(app, ["ingest", name, "--model", "./no-model", "--project", project])
        said = result.stderr
        assert result.exit_code == 2, (number, said)
        assert said.startswith("error: ") and "hint:  " in said and "Traceback" not in said
        assert said.replace("\n", "").isprintable()
        reasons["model" if said.startswith("error: ./no-model") else "facts"] += 1
    assert not Path("new").exists()
    assert snapshot(fresh) == before
    assert min(reasons.values()) > 30  # some get past the checks of the facts, most do not


SETTINGS = b"model: smollm2\nuntil_loss: 1e-4\nseed: 7\nverify: all\n# a comment\nfalse-fire: 0.02\n"


def test_any_settings_file_is_read_or_refused_with_words(tmp_path: Path) -> None:
    from memtune.config import Config

    rng = random.Random(0)
    path = tmp_path / "memtune.yaml"
    outcomes: Counter[bool] = Counter()
    for _ in range(800):
        path.write_bytes(damage(rng, SETTINGS))
        try:
            with no_hang():
                Config.load(path)
        except MemtuneError as error:
            assert str(error).isprintable()
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    assert min(outcomes.values()) > 50
