"""``python -m memtune`` is ``memtune``."""

from memtune.cli import main

main()
