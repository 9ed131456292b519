# Every target sets itself up: a private .venv, torch pinned through constraints.txt, nothing global.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev

.PHONY: demo test faults test-slow check bench docs format clean
.DEFAULT_GOAL := help

help:  ## what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("glottis needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) "setuptools>=77" wheel
	$(PIP) torch==2.13.0
	$(PIP) -e .
	@touch $@

$(DEV): $(STAMP)
	$(PIP) -e '.[dev,track,ssl]'
	@touch $@

demo: $(STAMP)  ## no data needed: synthetic talkers -> pack -> train both tasks -> evaluate (a few minutes)
	$(BIN)/glottis demo --out runs/demo

test: $(DEV)  ## the default test suite (no network, no GPU)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

faults: $(DEV)  ## the fault suite: NaN, damaged files, full disks, signals, kills; each with its guard and without
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults -n 2 --dist load tests/faults

test-slow: $(DEV)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

check: $(DEV)  ## ruff, mypy, import directions, file budgets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house.py

bench: $(DEV)  ## the benchmark scripts; each prints JSON ratios
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

docs: $(DEV)  ## build the documentation into site/
	$(PIP) -e '.[docs]'
	$(BIN)/mkdocs build --strict --site-dir site

format: $(DEV)  ## let ruff rewrite the layout and the imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and the caches (never runs/)
	rm -rf $(VENV) site build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
