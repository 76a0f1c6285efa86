# `make table2` makes the environment and all eleven rows on the embedded data, with their table and report.
# `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help table2 test long lint bench page clean

help:
	@echo "make table2   run all eleven rows of Table 2 on the embedded digits; print the table and write the report"
	@echo "make test     run linters, type checks and quick tests, with those of SLURM if it is installed: minutes"
	@echo "make long     run the tests that take minutes each: kills, failing nodes, time limits"
	@echo "make bench    compare with torchattacks, ART, foolbox and plain pyautoattack: half an hour"
	@echo "make page     write docs/results.md and its pictures from the results in docs/results/"
	@echo "make clean    remove the environment (runs in multirun/ are kept)"

table2: $(READY)
	@name=$$(mktemp); BNFT_SWEEP_FILE=$$name $(BIN)/bnft run -m +study=table2; ended=$$?; \
	if test -s $$name; then $(BIN)/bnft report $$(cat $$name); fi; rm -f $$name; exit $$ended

test: $(READY) lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not long"

long: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bnft needs Python 3.11 or newer; name one with PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(READY)

bench: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps torchattacks foolbox eagerpy adversarial-robustness-toolbox
	$(BIN)/python -m pip install --quiet scipy tqdm GitPython requests six
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/scaling.py

page: $(READY)
	$(BIN)/python scripts/results_page.py

clean:
	rm -rf $(VENV)
