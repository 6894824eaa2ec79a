"""Writes the help of every command into docs/commands.md, between its markers: ``make docs``."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from memtune.cli import app

PAGE = Path(__file__).with_name("commands.md")
FACTS = ("list", "show", "add", "update", "forget", "at", "log", "rollback", "export")
JOB = ("ingest", "tune", "plan", "merge", "probe", "eval", "score", "know", "capacity", "detect", "export")
COMMANDS = ("", *JOB, "facts", *(f"facts {name}" for name in FACTS), "audit")
BEGIN, END = "<!-- help: begin -->\n", "<!-- help: end -->\n"


def with_help(page: str) -> str:
    """The page with what ``memtune COMMAND --help`` prints now in place of what stands between the markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{''.join(map(_section, COMMANDS))}{END}{rest.split(END)[1]}"


def _section(command: str) -> str:
    words = [*command.split(), "--help"]
    shown = CliRunner().invoke(app, words, prog_name="memtune").stdout.rstrip()
    return f"## {' '.join(['memtune', *words[:-1]])}\n\n```text\n{shown}\n```\n\n"


if __name__ == "__main__":
    PAGE.write_text(with_help(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
