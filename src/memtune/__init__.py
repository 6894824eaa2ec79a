"""Teach a language-model checkpoint a file of facts: exact answers, nothing else changed, both proved.

    from pathlib import Path
    from memtune.config import Config
    from memtune.ingest import ingest
    from memtune.tune import tune

    project = Path(".memtune")
    ingest("facts.jsonl", project, Config())
    result = tune(project, Config(until_loss=0.01))

Each verb is one function in a module of its name: ingest, tune, probe, export. They return results and report through
``on_event``; nothing is printed. Importing this package loads no torch.
"""

__version__ = "0.1.0"
