# make demo: the environment and the main job. make test: the environment and the tests.
PYTHON ?= python3
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
TARGET ?= results/finetuned/mamba2_eeg_d256_l2_m20_mae_finetuned_best.pt

.PHONY: demo test env lint bench clean-env test-unit test-dag test-e2e

demo: env
	$(BIN)/snakemake --cores $(CORES) $(TARGET)

test: env
	$(BIN)/python -m pytest tests

test-unit test-dag test-e2e: test-%: env
	$(BIN)/python -m pytest tests/$*

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/mypy
	$(BIN)/remit config --check
	$(BIN)/snakemake --lint

bench: env
	$(BIN)/python tests/benchmarks/spine.py
	$(BIN)/python -W ignore tests/benchmarks/reading.py

env: $(VENV)/.made

# Pinned by envs/constraints.txt. Made anew when the pins or the package's needs change.
$(VENV)/.made: pyproject.toml envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "remit: Python %d.%d found; 3.11 or newer is needed; set PYTHON=..." % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt --editable '.[dev]'
	touch $@

clean-env:
	rm -rf $(VENV)
