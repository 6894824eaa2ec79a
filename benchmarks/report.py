"""Writes the tables of README.md and of the pages in docs from the JSON in benchmarks/results.

python benchmarks/report.py            # writes them
python benchmarks/report.py --check    # exits 1 if they are stale

A table stands between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``; a page without these has no such table. A
table without its JSON is left as it stands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from memtune.ui import capacity_view

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
PAGES = (
    ROOT / "README.md",
    DOCS / "benchmarks.md",
    DOCS / "reliability.md",
    DOCS / "integrations" / "backbones.md",
    DOCS / "integrations" / "vllm.md",
    DOCS / "integrations" / "quantised.md",
    *sorted((DOCS / "evidence").glob("*.md")),
)
MIB, GIB = 2**20, 2**30


Result = dict[str, Any]


def recall(*results: Result) -> str:
    """One row for each set of facts."""
    titles = ("facts", "exact", "paraphrases exact", "near misses silent", "unrelated silent", "behind 200 tokens")
    kinds = ("exact", "paraphrase", "near_miss_silent", "unrelated_silent")
    rows = [
        (
            f"{result['facts']:,}, {Path(result['command']['facts']).stem}",
            *(share(result[kind], "good") if kind in result else "-" for kind in kinds),
            f"{share(result['behind_200_tokens'], 'good')}, alone {share(result['without_context'], 'good')}",
        )
        for result in results
    ]
    commits = sorted({result["on"]["commit"] for result in results})
    first = results[0]
    note = f"{first['command']['model']}, torch {first['on']['torch']}, measured at {', '.join(commits)}."
    return "\n".join([*table(titles, rows), "", note])


def wordings(result: Result) -> str:
    """One row for each check set, each in a memory of its own, and one for all of them together."""
    titles = ("memory", "facts", "paraphrases: right fact fired", "near misses silent", "unrelated silent")
    kinds = ("paraphrase", "near_miss", "unrelated")
    rows = [
        (name, str(figures["facts"]), *(share(figures[kind], "right") for kind in kinds))
        for name, figures in result.items()
        if "facts" in figures
    ]
    return "\n".join([*table(titles, rows), "", f"{result['command']['model']}, measured at {result['on']['commit']}."])


def know(result: Result) -> str:
    """For each group and category before, what became of its facts with memtune and with LoRA."""
    arms = {"memory": "after memtune", "lora": "after LoRA"}
    rows = [
        (
            *(group, before, str(sum(result["transitions"]["memory"][group][i]))),
            *(counted(result["categories"], result["transitions"][arm][group][i]) for arm in arms),
        )
        for group in result["groups"]
        for i, before in enumerate(result["categories"])
        if any(result["transitions"]["memory"][group][i])
    ]
    said = [
        (
            *(group, "*said exactly, asked alone*", str(facts)),
            *(f"{result['said_alone'][arm][group]} ({result['said_alone']['before'][group]} before)" for arm in arms),
        )
        for group, facts in result["groups"].items()
    ]
    outside = sum(facts for group, facts in result["groups"].items() if group != "taught")
    moved = [f"{result['damage'][arm]} of {outside} {name}" for arm, name in arms.items()]
    note = f"Facts that were not taught and are in another category: {', '.join(moved)}. "
    note += f"{result['command']['model']}, {result['command']['sets']} sets of {result['command']['shots']}, "
    note += f"measured at {result['on']['commit']}."
    return "\n".join([*table(("group", "before", "facts", *arms.values()), [*rows, *said]), "", note])


def counted(names: Sequence[str], counts: Sequence[int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True) if count)


def main_job(result: Result) -> str:
    """The main job as a table; every figure is read from the file."""
    near, unrelated, seconds = result["near_miss"], result["unrelated"], result["seconds"]
    forward = min(seconds["plain_forward"])
    rows = [
        ("facts accepted", f"{result['learned']} of {result['facts']}"),
        ("worst mean loss of a fact", f"{result['loss_max']:.5f} nats per answer token"),
        ("exact, the tuned wording, generated", share(result["exact"], "exact")),
        ("exact, paraphrases that no part of memtune had seen", share(result["paraphrase"], "exact")),
        ("near-miss questions answered as by the backbone", share(near, "unchanged")),
        ("unrelated questions answered as by the backbone, token for token", share(unrelated, "unchanged")),
        ("tune, verification included", f"{seconds['tune']:.1f} s"),
        ("one plain forward pass with loss over the same conversations", f"{forward:.1f} s"),
        ("tune over that pass", f"{result['tune_over_plain_forward']:.2f}"),
        ("exported bundle, fresh process, exact", share(result["bundle"], "exact")),
    ]
    return "\n".join([*table(("measured", "result"), rows), "", f"{conditions(result, 'answer_tokens')}."])


def lora_race(result: Result) -> str:
    """Tune beside LoRA at each learning rate that was run to its end."""
    tune, first = result["tune"], result["tune"]["runs"][0]
    seconds = sorted(run["processor_seconds"] for run in tune["runs"])
    middle = (seconds[(len(seconds) - 1) // 2] + seconds[len(seconds) // 2]) / 2
    rows = [("memtune, tune", "", f"{middle:,.0f} s", "1", *_race_share(result, tune))]
    for rate, lora in result["lora"].items():
        spent = lora["processor_seconds"]
        rounds = f"{lora['details']['rounds']} epochs"
        rows.append((f"LoRA at {rate}", rounds, f"{spent:,.0f} s", f"{spent / middle:.0f}", *_race_share(result, lora)))
    titles = ("method", "", "processor seconds", "over tune", "accepted", "exact", "paraphrases exact")
    made = f"Ingest, before tune, took {first['ingest']:,.0f} s."
    return "\n".join([*table(titles, rows), "", f"{conditions(result, 'facts')}. {made}"])


def _race_share(result: Result, method: dict[str, Any]) -> tuple[str, ...]:
    asked = (f"{method[kind]['exact']} of {method[kind]['asked']}" for kind in ("exact", "paraphrase"))
    return (f"{method['accepted']} of {result['facts']}", *asked)


def side_by_side(result: Result) -> str:
    """One row for each method, in the order in which they ran; one that failed says so."""
    titles = ("method", "exact", "paraphrases exact", "near misses unchanged", "unrelated unchanged")
    titles += ("processor seconds a fact", "peak memory", "kept, a fact", "extra tokens a question")
    rows = [side_by_side_row(name, method, result["facts"]) for name, method in result["methods"].items()]
    asked = result["asked"]
    sets = f"{asked['paraphrases']} paraphrases, {asked['near_miss']} near misses, {asked['unrelated']} unrelated"
    return "\n".join([*table(titles, rows), "", f"{conditions(result, 'facts')}; asked: {sets}."])


def side_by_side_row(name: str, method: dict[str, Any], facts: int) -> tuple[str, ...]:
    if "failed" in method:
        return (name, f"failed: {method['failed']}", *[""] * 7)
    kinds = (("exact", "exact"), ("paraphrase", "exact"), ("near_miss", "unchanged"), ("unrelated", "unchanged"))
    return (
        method["says"],
        *(percent(method[kind], figure) for kind, figure in kinds),
        f"{method['seconds']['teach_cpu'] / facts:.2g}",
        gibibytes(method["peak_bytes"]["asked"]),
        size(method["bytes_per_fact"]),
        f"{method['extra_tokens_per_question']:.0f}",
    )


def changes(result: Result) -> str:
    """One row for each size of memory."""
    titles = (
        "facts",
        "ingest and tune",
        "add one",
        "update one",
        "forget one",
        "others untouched",
        "peak memory",
        "project",
    )
    rows = [
        (
            f"{row['facts']:,}",
            f"{row['ingest_seconds'] + row['tune_seconds']:,.0f} s",
            *(f"{row[f'{verb}_seconds']:.2f} s" for verb in ("add", "update", "forget")),
            f"{row['update_untouched']:,}",
            size(max(row[f"{verb}_peak_bytes"] for verb in ("add", "update", "forget"))),
            size(row["project_bytes"]),
        )
        for row in result["sizes"]
    ]
    note = f"A tiny backbone, {result['on']['threads']} threads, measured at {result['on']['commit']}."
    return "\n".join([*table(titles, rows), "", note])


def cost(result: Result) -> str:
    """One row for each way to teach the facts."""
    titles = ("way", "epochs", "operations", "seconds", "energy", "kept")
    rows = [
        (
            row["way"],
            f"{row['epochs']:,}",
            f"{row['flops']:.2g}" if row["flops"] else "-",
            f"{row['seconds']:,.0f}" if row["seconds"] else "-",
            f"{row['seconds'] * result['watts'] / 3600:.2g} Wh" if row["seconds"] else "-",
            size(row["bytes"]),
        )
        for row in result["costs"]
    ]
    note = f"The {result['facts']} example facts, smollm2, two CPU cores said to draw {result['watts']:g} W."
    return "\n".join([*table(titles, rows), "", note])


def checked(result: Result) -> str:
    """Each figure as planned and as measured."""
    rows = [
        (row["what"], f"{row['planned']:,.1f}", f"{row['measured']:,.1f}", f"{row['measured'] / row['planned']:.2f}")
        for row in result["figures"]
    ]
    return "\n".join(table(("", "planned", "measured", "measured / planned"), rows))


def server_load(result: Result) -> str:
    """One row for each kind of question, and the server's memory below."""
    titles = (
        "asked",
        "answered",
        "as expected",
        "a wrong fact",
        "otherwise",
        "no answer",
        "median wait",
        "99 of 100 within",
    )
    rows = [
        (
            kind,
            *(f"{row[name]:,}" for name in ("answered", "as_expected", "wrong_fact", "otherwise", "failed")),
            *(f"{row[name]:.0f} s" for name in ("seconds_median", "seconds_99")),
        )
        for kind, row in result["kinds"].items()
    ]
    held = [size(result["server"][f"bytes_at_{third}_of_3"]) for third in (1, 2, 3)]
    said = f"The server held {held[0]}, {held[1]} and {held[2]} after each third of the time"
    rate = f"{result['total']['answers_a_second']:.1f} answers a second"
    clients = f"{result['command']['clients']} clients, {result['command']['minutes']:g} minutes"
    return "\n".join([*table(titles, rows), "", f"{clients}, {rate}. {said}; measured at {result['on']['commit']}."])


def quantised(result: Result) -> str:
    """One row for each way to store the backbone, and LoRA's peak below."""
    titles = ("backbone", "weights", "peak: loaded", "ingest", "tune", "accepted", "exact", "paraphrases exact")
    rows = [
        (
            arm,
            size(row["backbone_bytes"]),
            *(size(row[f"{step}_peak_bytes"]) for step in ("loaded", "ingest", "tune")),
            f"{row['learned']} of {result['facts']}",
            *(share(row[kind], "exact") for kind in ("exact", "paraphrase")),
            share(row["near_miss"], "silent"),
            share(row["bundle"], "exact"),
        )
        for arm, row in result["arms"].items()
    ]
    on, lora = result["on"], result["lora"]
    note = (
        f"LoRA on the float32 backbone, {lora['epochs']} epochs over the same facts: peak {size(lora['peak_bytes'])}. "
    )
    note += f"{result['command']['model']}, torch {on['torch']}, {threads(on)}, measured at {on['commit']}."
    return "\n".join([*table((*titles, "near misses silent", "bundle exact"), rows), "", note])


def growth(result: Result) -> str:
    """One row for each number of facts, and the exponents; a figure that was not measured then has no column."""
    rows = result["sizes"]
    columns = [column for column in GROWTH if all(column[1] in row for row in rows)]
    cells = [tuple(write(row[figure]) for _, figure, write in columns) for row in rows]
    slopes = ", ".join(f"{figure.replace('_', ' ')} {slope:.2f}" for figure, slope in result["exponents"].items())
    on = result["on"]
    note = f"Exponents: {slopes}. {result['command']['model']}, {threads(on)}, measured at {on['commit']}."
    return "\n".join([*table(tuple(title for title, _, _ in columns), cells), "", note])


def growth_tiny(result: Result) -> str:
    """With its plot, which the benchmark writes beside the figures."""
    return (
        f"{growth(result)}\n\n![Seconds and bytes over facts, both logarithmic](../benchmarks/results/growth_tiny.svg)"
    )


def routing(result: Result) -> str:
    """Exact search beside the lists of the index."""
    titles = ("way", "one question", "of 256 together, each", "nearest found")
    found = {"exact": 1.0, "lists": result["agreement"]["best"]}
    rows = [
        (way, *(f"{times[f'ms_{when}']:.1f} ms" for when in ("alone", "together")), f"{found[way]:.2%}")
        for way, times in result["ways"].items()
    ]
    on, each = result["on"], result["bytes_per_key"]
    note = f"{result['keys']:,} keys of {each['vector']} bytes and "
    note += f"{each['lists'] + each['centroids']:.1f} for the lists, "
    note += f"{result['chosen']['probes']} of {result['lists']:,} looked into; built in "
    note += f"{result['build_seconds']:.0f} s. {threads(on)}, measured at {on['commit']}."
    return "\n".join([*table(titles, rows), "", note])


def overhead(result: Result) -> str:
    """What the memory adds to a question and to a token."""
    question = result["question"]
    rows = [("routing a question, of its prefill", f"{question['ratio']:.0%}", f"{question['routing_ms']:.0f} ms")]
    for token in result["decode"]:
        behind = f", behind {token['context']:,} tokens" if token["context"] else ""
        rows.append((f"a decoded token{behind}", f"{token['ratio'] - 1:+.1%}", f"{token['without_ms']:.0f} ms without"))
    on = result["on"]
    note = (
        f"{result['command']['model']}, {result['command']['facts']} facts, {threads(on)}, measured at {on['commit']}."
    )
    return "\n".join([*table(("what", "cost", "median"), rows), "", note])


def at_logits(result: Result) -> str:
    """The memory in its two places, question by question."""
    titles = (
        "asked",
        "answers",
        "exact behind the state",
        "exact at the logits",
        "exact in one alone",
        "least sure token",
    )
    rows = [
        (
            asked,
            f"{figures['asked']}",
            f"{figures['exact_behind_the_state']}",
            f"{figures['exact_at_the_logits']}",
            f"{figures['exact_in_one_alone']}",
            f"{figures['least_sure_token_behind_the_state']:.5f}, {figures['least_sure_token_at_the_logits']:.5f}",
        )
        for asked, figures in (("the facts", result["facts"]), ("their other wordings", result["wordings"]))
    ]
    return "\n".join([*table(titles, rows), "", f"Measured at {result['on']['commit']}."])


def vllm_server(result: Result) -> str:
    """What the server says with the processor and without it."""
    asked = (("facts", "the facts, exact"), ("questions", "their other wordings, exact"))
    rows = [(title, *(share(result[f"{name}_{how}"], "exact") for how in ("with", "without"))) for name, title in asked]
    rows.append(("unrelated prompts, the same as without", share(result["unrelated"], "same"), "-"))
    on = result["on"]
    note = f"{result['command']['at_once']} requests at once, vLLM {result['vllm']} on a CPU, torch {on['torch']}, "
    note += f"measured at {on['commit']}."
    return "\n".join([*table(("asked", "with the memory", "without"), rows), "", note])


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return head + [f"| {' | '.join(cells)} |" for cells in rows]


def conditions(result: dict[str, Any], counted: str) -> str:
    """What was measured on what, for the line below a table."""
    on = result["on"]
    what = f"{result[counted]:,} {counted.replace('_', ' ')}"
    return f"{result['command']['model']}, {what}, {threads(on)}, torch {on['torch']}"


def threads(on: dict[str, Any]) -> str:
    return "1 thread" if on["threads"] == 1 else f"{on['threads']} threads"


def share(figures: dict[str, Any], name: str) -> str:
    count, asked = figures[name], figures["asked"]
    return f"{count} of {asked} ({count / asked:.1%})"


def percent(figures: dict[str, Any], name: str) -> str:
    return f"{figures[name] / figures['asked']:.0%}" if figures["asked"] else "-"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def gibibytes(count: float) -> str:
    return f"{count / GIB:.2f} GiB"


def size(count: float) -> str:
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count / 1024:.0f} KiB"


GROWTH: tuple[tuple[str, str, Callable[[float], str]], ...] = (  # title, figure, how it is written
    ("facts", "facts", "{:,}".format),
    ("ingest", "ingest_seconds", "{:,.1f} s".format),
    ("tune", "tune_seconds", "{:,.1f} s".format),
    ("export", "export_seconds", "{:,.1f} s".format),
    ("read a question", "read_seconds_per_question", milliseconds),
    ("look it up", "lookup_seconds_per_question", milliseconds),
    ("paraphrases exact", "paraphrase_recall", "{:.0%}".format),
    ("expected", "expected_recall", "{:.0%}".format),
    ("on disk, a fact", "bytes_per_fact", size),
    ("bank, an answer token", "bank_bytes_per_answer_token", "{:.0f} B".format),
    ("peak memory", "peak_bytes", gibibytes),
    ("peak memory of ingest", "ingest_peak_bytes", gibibytes),
    ("of tune", "tune_peak_bytes", gibibytes),
)


def shards(result: Result) -> str:
    """One process over all facts beside the slowest of the shards, in seconds and in processor seconds."""
    fitted, alone = result["shards"], result["alone"]
    titles = ("what", "seconds", "processor seconds")
    kinds = ("seconds", "processor_seconds")
    slowest = {kind: max(shard[kind] for shard in fitted) for kind in kinds}
    rows = [
        ("one process, all facts", *(f"{alone[kind]:.1f}" for kind in kinds)),
        (f"{len(fitted)} shards at the same time, the slowest", *(f"{slowest[kind]:.1f}" for kind in kinds)),
        ("merge", *(f"{result['merge'][kind]:.1f}" for kind in kinds)),
        ("speed-up of fitting", *(f"{result[f'speed_up_in_{kind}']:.2f}" for kind in kinds)),
        ("speed-up, merge included", *(f"{result[f'speed_up_with_merge_in_{kind}']:.2f}" for kind in kinds)),
    ]
    same = "The files are the same, byte for byte" if result["same_bytes"] else "The files are NOT the same"
    what = f"{result['command']['model']}, {result['facts']} facts, one thread each, torch {result['on']['torch']}"
    note = f"{same}. {what}."
    return "\n".join([*table(titles, rows), "", note])


def detectors(result: Result) -> str:
    """How well wrong replies are told from right ones, on each set of questions."""
    sets = result["detected"]
    titles = ("seen of the reply", *(f"{name.replace('_', ' ')}: AUROC (95 %)" for name in sets))
    names = [observable["name"] for observable in next(iter(sets.values()))["observables"]]
    rows = [
        (name, *(interval(found["observables"][i]["auroc"]) for found in sets.values())) for i, name in enumerate(names)
    ]
    together = (interval(found["together"]) for found in sets.values())
    rows.append(("**all together, on replies that were not fitted**", *together))
    asked = "; ".join(f"{name.replace('_', ' ')}: {f['wrong']} of {f['asked']} wrong" for name, f in sets.items())
    note = f"{result['command']['model']}, replies of at most 16 tokens; {asked}. Measured at {result['on']['commit']}."
    return "\n".join([*table(titles, rows), "", note])


def interval(auroc: dict[str, float]) -> str:
    return f"{auroc['value']:.2f} ({auroc['low']:.2f} to {auroc['high']:.2f})"


def explained(result: Result) -> str:
    """What one explanation takes, in seconds of a processor."""
    rows = [
        (
            row["probed"]["question"],
            f"{row['processor_seconds']['explanation']:.1f} s",
            f"{row['processor_seconds']['trace']:.1f} s" if row["trace"] else "-",
        )
        for row in result["explained"]
    ]
    on = result["on"]
    note = f"Processor seconds, {result['command']['model']}, {threads(on)}, torch {on['torch']}, measured at "
    note += f"{on['commit']}."
    plots = {"": "Rank by layer", "_attention": "Indirect effect of attention", "_mlp": "Indirect effect of the MLPs"}
    images = [f"![{says}](../../benchmarks/results/explain{name}.svg)" for name, says in plots.items()]
    traced = (
        f"The plots are of the last question, the one with a trace: {result['explained'][-1]['trace']['said']!r} over "
    )
    traced += f"{result['explained'][-1]['trace']['gold']!r}."
    return "\n".join([*table(("question", "explanation", "trace"), rows), "", note, "", traced, "", *images])


def capacity(result: Result) -> str:
    """What the command said at the end of its run."""
    found = json.loads(json.dumps(result), object_hook=lambda entries: SimpleNamespace(**entries))
    console = Console(file=StringIO(), width=80, color_system=None, legacy_windows=False)
    for part in capacity_view(found):
        console.print(part)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    return "\n".join(["```text", *lines, "```"])


def capacity_curves(result: Result) -> str:
    """The plots that the command wrote beside the figures, one for each learner."""
    figures = {"memory": ("The memory, the paper's Figure 5:", "steps"), "LoRA": ("LoRA, its Figure 1:", "epochs")}
    parts = []
    for learner in dict.fromkeys(arm["learner"] for arm in result["arms"]):
        title, rounds = figures[learner]
        place = f"../../benchmarks/results/capacity/{learner.lower()}.svg"
        parts.append(f"{title}\n\n![Loss over {rounds}, random and true answers]({place})")
    return "\n\n".join(parts)


def capacity_sweep(result: Result) -> str:
    """One row for each number of random answers."""
    rows = [
        (f"{arm['facts']}", f"{arm['exact']}", f"{arm['bits']:,.0f}", size(arm["stored"]["bytes"]))
        for arm in result["sweep"]
    ]
    return "\n".join(table(("random answers", "said exactly", "bits", "experts"), rows))


def capacity_cost(result: Result) -> str:
    """What each learner took and keeps, for either set of answers."""
    titles = ("learner, answers", "answer tokens", "processor seconds a fact", "loss, worst fact", "fitted", "in all")
    rows = [
        (
            f"{arm['learner']}, {arm['answers']}",
            f"{arm['tokens']:,}",
            f"{arm['processor_seconds'] / arm['facts']:.2f}",
            f"{arm['loss_max']:.2g}",
            f"{arm['stored']['parameters']:,} parameters, {size(arm['stored']['bytes'])}",
            size(arm["stored"]["whole"]),
        )
        for arm in result["arms"]
    ]
    what = f"{result['model']}, {result['facts']} facts, torch {result['versions']['torch']}, seed {result['seed']}."
    return "\n".join([*table(titles, rows), "", what])


def scored(result: Result) -> str:
    """The same questions with the memory on and off."""
    names = {"memory_on": "on", "memory_off": "off: the backbone alone"}
    kinds = ("supported", "contradicted", "no_evidence")
    rows = [
        (name, *(str(result[key][kind]) for kind in kinds), *(f"{result[key][m]:.3f}" for m in ("precision", "f1")))
        for key, name in names.items()
    ]
    asked, on = result["memory_on"]["answers"], result["on"]
    note = (
        f"{asked} questions, each answer's own K, answers of at most {result['command']['longest']} tokens without the "
    )
    note += f"memory; torch {on['torch']}, measured at {on['commit']}."
    return "\n".join(
        [*table(("memory", "supported", "contradicted", "no evidence", "precision", "F1@K"), rows), "", note]
    )


def statements(result: Result) -> str:
    """What the rules of score say of statements and of answers, a row for each kind of them."""
    fresh, said, answers = result["held_out"]["verdicts"], result["statements"]["verdicts"], result["answers"]
    found = (
        ("**a fact said right, written when the rules were done**", fresh["true"]),
        ("**a fact said wrong, written when the rules were done**", fresh["false"]),
        ("a fact said right, in a sentence", said["true"]),
        ("a fact said wrong, in a sentence", said["false"]),
        ("the right answer, behind a wording that is stored nowhere", answers["right"]),
        ("the answer of the next fact of the file, behind such a wording", answers["of_another_fact"]),
        ("a stored answer, behind a question that no fact answers", answers["near_miss"]),
    )
    kinds = ("supported", "contradicted", "no evidence")
    rows = [(name, str(sum(counts.values())), *(str(counts[kind]) for kind in kinds)) for name, counts in found]
    note = (
        f"{result['facts']} facts, {result['milliseconds_per_statement']:.2f} ms of one core for a statement, measured "
    )
    note += f"at {result['on']['commit']}."
    return "\n".join([*table(("said", "asked", *kinds), rows), "", note])


def guard(*results: Result) -> str:
    """What each guard objected to before and after, and the model calls that it took."""
    titles = (
        "guard",
        "questions",
        "objected to",
        "still",
        "rewinds",
        "model calls, plain",
        "guarded",
        "times",
        "CPU s",
    )
    rows = [
        (
            f"{result['command']['guard']}, {result['command']['questions']}, memory {result['command']['memory']}",
            str(len(result["answers"])),
            *(str(result[kind]) for kind in ("objected", "objected_after", "rewound", "plain_calls", "calls")),
            f"{result['calls'] / result['plain_calls']:.1f}",
            f"{sum(one['processor_seconds'] for one in result['answers']):.1f}",
        )
        for result in results
    ]
    limits = {r["command"]["guard"]: f"{r['command']['tries']} and {r['command']['new_tries']}" for r in results}
    tries = "; ".join(f"{name} {numbers}" for name, numbers in limits.items())
    first, commits = results[0], sorted({result["on"]["commit"] for result in results})
    note = (
        f"{first['command']['model']}, answers of {first['command']['longest']} tokens at most, one thread; CPU time "
        f"with calibration; tries for the first set and later ones: {tries}. Measured at {', '.join(commits)}."
    )
    return "\n".join([*table(titles, rows), "", note])


TABLES: dict[str, tuple[str, Callable[..., str]]] = {  # the files that a table is made of, and how
    "at the logits": ("at_logits.json", at_logits),
    "capacity, sweep": ("capacity_sweep.json", capacity_sweep),
    "capacity": ("capacity/capacity.json", capacity),
    "capacity, cost": ("capacity/capacity.json", capacity_cost),
    "capacity, curves": ("capacity/capacity.json", capacity_curves),
    "changes": ("changes.json", changes),
    "cost": ("plan.json", cost),
    "cost, checked": ("plan_checked.json", checked),
    "detectors": ("detect.json", detectors),
    "explained": ("explain.json", explained),
    "guard": ("guard_*.json", guard),
    "growth": ("growth.json", growth),
    "know": ("know.json", know),
    "growth, tiny": ("growth_tiny.json", growth_tiny),
    "main job": ("main_job.json", main_job),
    "main job, gemma 3": ("main_job_gemma3.json", main_job),
    "lora race": ("lora_race.json", lora_race),
    "lora race, bfloat16": ("lora_race_bfloat16.json", lora_race),
    "overhead": ("overhead.json", overhead),
    "quantised": ("quantised.json", quantised),
    "recall": ("recall_*.json", recall),
    "recall, bfloat16": ("bfloat16/recall_*.json", recall),
    "routing": ("routing.json", routing),
    "server load": ("server_load.json", server_load),
    "score": ("score.json", scored),
    "shards": ("shards.json", shards),
    "side by side": ("side_by_side.json", side_by_side),
    "statements": ("statements.json", statements),
    "vllm": ("vllm_server.json", vllm_server),
    "wordings": ("wordings.json", wordings),
}


def with_table(page: str, name: str, lines: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in page:
        return page
    head, rest = page.split(begin)
    return head + begin + "\n" + lines + "\n" + end + rest.split(end)[1]


def with_tables(page: str, results: Path = RESULTS) -> str:
    """The page with every table whose figures are there."""
    for name, (pattern, render) in TABLES.items():
        if found := sorted(results.glob(pattern)):
            page = with_table(page, name, render(*(json.loads(path.read_text(encoding="utf-8")) for path in found)))
    return page


def main() -> int:
    stale = False
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        written = with_tables(page)
        stale |= page != written
        if "--check" not in sys.argv:
            path.write_text(written, encoding="utf-8")
    return int(stale and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
