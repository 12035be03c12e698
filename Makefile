# Two commands on a fresh machine: `make quickstart` runs the main job, `make test` the tests. Each sets itself up.
PYTHON ?= python3
BIN := .venv/bin
OUT := outputs/quickstart

.PHONY: setup quickstart test test-slow lint bench clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.stamp ## make .venv with the pinned packages

.venv/.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; set PYTHON=python3.12, say" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: setup ## mine instructions, tune SmolLM2-135M on them, score it zero-shot
	$(BIN)/instructrec base-model
	$(BIN)/instructrec build --output $(OUT)/set
	$(BIN)/accelerate launch --quiet recipes/sft.py
	$(BIN)/accelerate launch --quiet recipes/evaluate.py --adapter $(OUT)/adapter
	@echo "adapter: $(OUT)/adapter"
	@echo "chat:    $(BIN)/instructrec chat --adapter $(OUT)/adapter"

test: setup ## the tests, but for the slow ones
	$(BIN)/python -m pytest -m 'not slow' --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: setup ## the tests that train or score the real base model
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 2 --dist worksteal

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## the benchmarks of speed; results go to benchmarks/results
	$(BIN)/python benchmarks/build.py
	$(BIN)/python benchmarks/evaluate.py

clean: ## remove what the commands above made, except outputs
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
