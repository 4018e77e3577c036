# make demo    train a tiny model with SRPO on this machine's CPU, about five minutes
# make walk    prepare, train, evaluate, report with a tiny model on this machine's CPU (docs/workflows.md)
# make lab     GRPO, SDPO and SRPO with two seeds in the laboratory of docs/evidence.md; `make lab-full` all of it,
#              `make lab-family` the comparison of docs/comparison.md,
#              `make lab-smollm2` SmolLM2-135M on arithmetic (more than an hour, 13 GiB)
# make test    every test but those of `make nightly`; `make test-fast` leaves out those that start Ray and vLLM
# make test-cluster    a run over a Ray cluster of two nodes (network namespaces; needs root), one of which is lost
# make reproduce-demo  a grid of twelve tiny runs, killed half way and started again
# make nightly soak, workers killed again and again, the rarer faults, 10,000 and more examples of the property tests
# make lint    ruff (rules and format), mypy, import-linter (which package may import which)
# make docs    the documentation as a site, into build/site; a dead link, anchor or key is an error
# make bench   what SRPO costs, as ratios measured in one run; `make bench-check` fails if one is over its limit
# make gpu-set   .venv-gpu from requirements/gpu.txt, 11 GB; `make test-gpu-set` runs there what needs no GPU
# make gpu-check  on a machine with an NVIDIA GPU and the GPU set in VENV: stages core, worker, stack, demo (docs/hardware.md)
# make gpu-wheels   what gpu-check needs on a machine without a network, in pieces of at most 60 MB
# make dist    sdist and wheel into dist/, looked at in an empty environment; `make dist-check` trains from the wheel
# make venv    .venv from requirements/cpu.txt; the other targets call it
# make lock    resolve pyproject.toml into requirements/*.txt (needs uv)
# make clean   remove caches and build products; `make distclean` also .venv and runs/
#
# Variables: VENV=.venv  GPU_VENV=.venv-gpu  PYTHON=python3.11  WORKERS=2 (tests side by side)  ARGS="..." for the program that runs (make demo ARGS="--seed 1 --steps 20")

VENV ?= .venv
GPU_VENV ?= .venv-gpu
PYTHON ?= python3.11
ARGS ?=
WORKERS ?= 2
LOCK_FLAGS ?=
BIN := $(VENV)/bin

# Two OpenMP threads on a small, busy machine are slower than one.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo walk lab lab-full lab-family lab-smollm2 test test-fast test-cluster nightly reproduce-demo gpu-set test-gpu-set gpu-check gpu-wheels bench bench-check docs lint format venv lock dist dist-check clean distclean

demo: venv
	$(BIN)/python -m workflows.cli demo $(ARGS)

# The comment at the head of this file.
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

walk: venv
	PYTHON=$(BIN)/python examples/walk/walk.sh $(ARGS)

lab: venv
	$(BIN)/python -m laboratory.grid reduced --jobs 2 --folder runs/lab $(ARGS)
	$(BIN)/python -m laboratory.evidence --records runs/lab/records --print

# Compare with what is published: python -m laboratory.evidence --records runs/lab-full/records --print
lab-full: venv
	$(BIN)/python -m laboratory.grid learning_rates main further_seeds teachers ablations causes --jobs 2 --folder runs/lab-full $(ARGS)
	$(BIN)/python -m laboratory.evidence --records runs/lab-full/records --print

lab-family: venv
	$(BIN)/python -m laboratory.grid learning_rates family_rates family --jobs 2 --folder runs/lab-family $(ARGS)
	$(BIN)/python -m laboratory.comparison --records runs/lab-family/records/family --print

lab-smollm2: venv
	$(BIN)/python examples/smollm2/prepare.py --out runs/smollm2/model
	$(BIN)/python examples/smollm2/data.py arithmetic --out runs/smollm2
	$(BIN)/python -m laboratory.through_verl smollm2 --steps 30 --seeds 0 1 $(ARGS)

# A module's tests stay together: they share what is dear to make. Each run of the real stack takes 7 to 10 GiB.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope

# Packages that only tests need, one at a time: what cannot be had costs the tests that need it, not the suite.
TEST_PACKAGES = $(VENV)/test_packages.txt
$(TEST_PACKAGES): requirements/tests.txt | venv
	grep -v '^#' $< | xargs -n 1 $(BIN)/python -m pip install --quiet --no-deps \
		|| echo "some packages of $< could not be installed: tests that need them are skipped" >&2
	cp $< $@

test: venv $(TEST_PACKAGES)
	$(PYTEST) $(ARGS)

test-fast: venv $(TEST_PACKAGES)
	$(PYTEST) -m "not stack and not slow" $(ARGS)

test-cluster: venv
	$(BIN)/python -m pytest -m cluster $(ARGS)

reproduce-demo: venv
	$(BIN)/python examples/grid/demo.py $(ARGS)

# SRPO_SOAK_STEPS=300 SRPO_KILLS=10 by default.
nightly: venv $(TEST_PACKAGES)
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -m "hypothesis and not stack" --hypothesis-show-statistics \
		tests/core tests/training $(ARGS) > fuzz.log || (tail -40 fuzz.log; exit 1)
	awk '/ passing, / { n += $$2 } END { print n " examples passed"; exit n < 10000 }' fuzz.log
	$(BIN)/python -m pytest -m nightly tests/stack tests/training tests/workflows -s $(ARGS)
	$(MAKE) test-gpu-set ARGS="$(ARGS)"

# The default of PYTHON is the CPU set's.
gpu-set:
	@PYTHON=$(if $(filter file,$(origin PYTHON)),python3.12,$(PYTHON)) requirements/gpu_set.sh $(GPU_VENV)

# Everything passes, or is skipped because it needs a GPU or the CPU set.
test-gpu-set: gpu-set
	$(GPU_VENV)/bin/python -m pytest -n $(WORKERS) --dist loadscope -m "not stack and not slow" $(ARGS)

# With the GPU set: VENV=.venv-gpu. The stage `core` needs torch and pytest alone.
gpu-check:
	$(BIN)/python -m workflows.gpu_check $(ARGS)

# ARGS="--have FILE" leaves out what that machine has; FILE is its `pip list --format=freeze`.
gpu-wheels: venv
	$(BIN)/python requirements/wheels.py $(ARGS)

DOC_PACKAGES = $(VENV)/doc_packages.txt
$(DOC_PACKAGES): requirements/docs.txt | venv
	$(BIN)/python -m pip install --quiet --no-deps -r $<
	cp $< $@

# The variable silences an advertisement of the theme.
docs: venv $(DOC_PACKAGES)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

bench: venv
	$(BIN)/python -m benchmarks $(ARGS)

bench-check: venv
	$(BIN)/python -m benchmarks --check $(ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv:
	@PYTHON=$(PYTHON) requirements/make_venv.sh $(VENV)

lock:
	requirements/lock.sh $(LOCK_FLAGS)

dist:
	PYTHON=$(PYTHON) requirements/dist.sh

# With the dependencies of VENV: the demo and all tests of the wheel.
dist-check: venv
	$(BIN)/python -m pytest -m "nightly or not nightly" tests/test_wheel.py $(ARGS)

clean:
	rm -rf fuzz.log build dist outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) runs *.egg-info
