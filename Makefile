# make demo: the environment and the main job. make test: the environment and the tests.
PYTHON ?= python3
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
SLOW := build/slow
TARGET ?= results/finetuned/mamba2_eeg_d256_l2_m20_mae_finetuned_best.pt

.PHONY: demo test env lint dag bench bench-engine bench-statistics clean-env test-unit test-dag test-e2e test-faults test-slow

demo: env
	$(BIN)/snakemake --cores $(CORES) $(TARGET)

test: env
	$(BIN)/python -m pytest tests -m "not slow"

test-unit test-dag test-e2e test-faults: test-%: env
	$(BIN)/python -m pytest tests/$* -m "not slow"

# What takes minutes; then mamba-ssm's own kernels under Triton's interpreter, in an environment that
# borrows the other one.
test-slow: $(SLOW)/.made
	$(BIN)/python -m pytest tests/unit -m slow
	TRITON_INTERPRET=1 MAMBA_DETERMINISTIC=1 $(SLOW)/bin/python -W ignore::UserWarning -m pytest tests/slow

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/mypy
	$(BIN)/remit config --check
	$(BIN)/snakemake --lint

# The picture of the rules; needs graphviz. Snakemake writes the arrows in any order: they are sorted.
dag: env
	mkdir -p build
	$(BIN)/snakemake --rulegraph > build/dag.dot
	{ grep -v -e '->' -e '^}' build/dag.dot; grep -e '->' build/dag.dot | LC_ALL=C sort; echo '}'; } \
	  | dot -Tsvg > docs/dag.svg

bench: env
	$(BIN)/python tests/benchmarks/spine.py
	$(BIN)/python -W ignore tests/benchmarks/reading.py
	$(BIN)/python -W ignore tests/benchmarks/corpora.py

# Some ten minutes. mamba-ssm's source comes through pip, into the user's cache.
bench-engine: env
	$(BIN)/python tests/benchmarks/engine.py

# Simulated cohorts whose truth is known; about half an hour of two quiet cores; see --repeats.
bench-statistics: env
	$(BIN)/python tests/benchmarks/statistics.py

env: $(VENV)/.made

# Pinned by envs/constraints.txt. Made anew when the pins or the package's needs change.
$(VENV)/.made: pyproject.toml envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "remit: Python %d.%d found; 3.11 or newer is needed; set PYTHON=..." % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt --editable '.[dev]'
	touch $@

# Without --no-deps pip would fetch a CUDA build of torch; the two variables leave out what nvcc compiles.
$(SLOW)/.made: envs/constraints.txt | env
	test -x $(SLOW)/bin/python || $(PYTHON) -m venv $(SLOW)
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
	  > $$($(SLOW)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/remit.pth
	$(SLOW)/bin/python -m pip install --quiet setuptools wheel ninja
	$(SLOW)/bin/python -m pip install --quiet --constraint envs/constraints.txt --no-deps triton einops
	MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE $(SLOW)/bin/python -m pip install --quiet \
	  --constraint envs/constraints.txt --no-deps --no-build-isolation mamba-ssm
	touch $@

clean-env:
	rm -rf $(VENV) $(SLOW)
