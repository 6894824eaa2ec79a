"""The figures in the pages are those of the JSON files beside the benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_table_in_the_pages_is_what_the_results_say():
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "report.py", "--check"], check=False)
    assert done.returncode == 0, "run: python benchmarks/report.py"
