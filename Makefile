# make demo: the environment and the main job. make test: the environment and the tests.
PYTHON ?= python3
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
SLOW := build/slow
AUDIT := build/audit
TARGET ?= results/finetuned/mamba2_eeg_d256_l2_m50_mae_finetuned_best.pt

.PHONY: demo test env lint dag docs bench bench-engine bench-statistics bench-scale clean-env test-unit test-dag test-e2e test-faults test-cluster test-slow test-gpu audit

demo: env
	$(BIN)/snakemake --cores $(CORES) $(TARGET)

# File by file in their order: the long ones come first, and no core waits for the last of them.
test: env
	$(BIN)/python -m pytest tests -m "not slow and not cluster" -n $(CORES) --dist loadfile --no-loadscope-reorder

test-unit test-dag test-e2e: test-%: env
	$(BIN)/python -m pytest tests/$* -m "not slow"

# The tests, and then 50 faults drawn from a seed: kills, full and read-only disks, files cut anywhere.
test-faults: env
	$(BIN)/python -m pytest tests/faults -m "not slow"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.faults.seeded --faults 50

# Known holes in the pinned versions: asks PyPI, and fails where that does not know each of them. In an
# environment of its own, as it is no part of remit.
audit: $(AUDIT)/.made
	$(AUDIT)/bin/pip-audit --requirement envs/constraints.txt --no-deps --disable-pip --strict --progress-spinner off

$(AUDIT)/.made:
	test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit==2.10.1
	touch $@

# A real SLURM of one node from Debian's packages: as root, on a machine without a SLURM of its own.
test-cluster: env
	$(BIN)/python -m pytest tests/cluster -m cluster

# On a CUDA device: remit against the CPU, trainings and what judges them, and mamba-ssm's kernels if they are
# installed. Fails where there is no device. Not in CI, which pretends one (tests/pretended).
test-gpu: env
	$(BIN)/python -m pytest tests/pretended/inside_cuda.py tests/unit/nn/test_backends.py
	REMIT_TEST_DEVICE=cuda $(BIN)/python -m pytest tests/unit/training tests/unit/evaluation -m "not slow"

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

# The documents as a site, in build/site; a broken link stops it. Nothing is fetched.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

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
	$(BIN)/python tests/benchmarks/honesty.py

# Plans of 10,000 recordings, a rerun of 1,000, the memory of their primary dataset; some ten minutes.
bench-scale: env
	$(BIN)/python tests/benchmarks/scale.py

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
	rm -rf $(VENV) $(SLOW) $(AUDIT)
