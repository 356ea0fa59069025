# Every target creates the environment it needs and brings it up to date when pyproject.toml or
# the pinned versions change. Choose another interpreter with: make test PYTHON=python3.12

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
VENV := .venv
BIN := $(VENV)/bin
PARITY_VENV := .venv-parity
QUALITY_VENV := .venv-quality
EXPORTS_VENV := .venv-exports
BENCH_VENV := .venv-bench
DOCS_VENV := .venv-docs
CONSTRAINTS := requirements/constraints.txt
PINS := pyproject.toml $(CONSTRAINTS)
# Compiling every module of TensorFlow and Ray takes half a minute; the few used compile themselves.
PIP_FLAGS := --quiet --disable-pip-version-check --no-compile
# Storms of `make chaos`; half an hour.
CHAOS_RUNS ?= 20
DEMO_OUT ?= amg-demo
PYTEST_ARGS ?=
# Processes of `make test`; each may load TensorFlow.
TEST_WORKERS ?= 2
PARITY_ARGS ?=
BACKENDS_ARGS ?=
SCALE_ARGS ?=
# Folder of BSDS500 val with images/ and groundTruth/, which must not be copied into the project.
BSDS ?=
QUALITY_ARGS ?=
BENCH_ARGS ?=

# Models run on the CPU in these targets, whatever the machine has.
export CUDA_VISIBLE_DEVICES := -1
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help demo install test docs docs-test exports ray training-tests jobs s3 s3-server browser chromium chaos lint format types check parity backends quality scale bench work clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What a user needs; the development tools come on top, so that the demo starts sooner.
$(VENV)/.runtime-installed: $(PINS) | $(BIN)/python
	@echo "Installing into $(VENV) (TensorFlow and Ray: a minute or two, once)"
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint $(CONSTRAINTS) --editable .
	@touch $@

$(VENV)/.dev-installed: $(PINS) | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint $(CONSTRAINTS) --editable ".[dev]"
	@# Compiled here, or warnings about other people's source would be errors of the first test run.
	-@$(BIN)/python -W ignore -m compileall -q -j 0 $(VENV)/lib > /dev/null
	@touch $(VENV)/.runtime-installed $@

install: $(VENV)/.dev-installed ## Create .venv with the package and the development tools

demo: $(VENV)/.runtime-installed ## Masks of the sample photos, with a page to look at
	$(BIN)/amg demo $(DEMO_OUT)

test: $(VENV)/.dev-installed ## Run the tests with branch coverage
	$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile \
		--cov --cov-report=term $(PYTEST_ARGS)

# COCO, CVAT, YOLO, Label Studio, LabelMe, FiftyOne and datasets weigh two gigabytes.
$(EXPORTS_VENV)/.installed: pyproject.toml requirements/exports.txt
	$(PYTHON) -m venv $(EXPORTS_VENV)
	@echo "Installing into $(EXPORTS_VENV) (the programs that exports are for: some minutes, once)"
	$(EXPORTS_VENV)/bin/python -m pip install $(PIP_FLAGS) --no-deps \
		--requirement requirements/exports.txt --editable .
	@touch $@

exports: $(EXPORTS_VENV)/.installed ## Open exports with the programs that they are for
	$(EXPORTS_VENV)/bin/python -m pytest -m exports tests/exports $(PYTEST_ARGS)

$(DOCS_VENV)/.installed: pyproject.toml $(CONSTRAINTS) requirements/docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install $(PIP_FLAGS) --constraint $(CONSTRAINTS) \
		--requirement requirements/docs.txt
	@touch $@

docs: $(DOCS_VENV)/.installed ## Build the documentation site into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --quiet

docs-test: $(VENV)/.dev-installed ## Run the commands of README and docs
	$(BIN)/python -m pytest -m docs tests/docs --numprocesses $(TEST_WORKERS) $(PYTEST_ARGS)

ray: $(VENV)/.dev-installed ## Run shards on a Ray of this machine
	$(BIN)/python -m pytest -m "ray and not chaos" tests/distributed $(PYTEST_ARGS)

training-tests: $(VENV)/.dev-installed ## Fit small models, kill trainings, see that they go on
	$(BIN)/python -m pytest -m training tests/training tests/evaluation tests/cli tests/distributed \
		--numprocesses $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

jobs: $(VENV)/.dev-installed ## Submit jobs to a Ray head on this machine, see how they end
	$(BIN)/python -m pytest -m ray_job tests/jobs $(PYTEST_ARGS)

s3: $(VENV)/.dev-installed s3-server ## Test on real S3 servers, which run on this machine
	$(BIN)/python -m pytest -m s3 tests/s3 $(PYTEST_ARGS)

# Ceph's RADOS Gateway; the servers of the tests run below a temporary folder, by themselves.
chaos: $(VENV)/.dev-installed s3-server ## Kill parts of a cluster on a real S3 server, again and again
	AMG_CHAOS_RUNS=$(CHAOS_RUNS) $(BIN)/python -m pytest -m chaos tests/chaos tests/distributed $(PYTEST_ARGS)

# Debian's Chromium, in which the pages are opened; what they look like is kept in screenshots/.
$(VENV)/.browser-installed: $(VENV)/.dev-installed
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint $(CONSTRAINTS) --editable ".[browser]"
	@touch $@

browser: $(VENV)/.browser-installed chromium ## Review masks in Chromium as a user does, and measure
	$(BIN)/python -m pytest -m browser -s tests/browser $(PYTEST_ARGS)

chromium:
	@if [[ ! -x /usr/bin/chromium ]]; then \
		sudo=$$([[ $$(id -u) == 0 ]] || echo sudo); \
		$$sudo apt-get update -qq; \
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			chromium > /dev/null; \
	fi

s3-server:
	@for program in ceph-mon ceph-osd radosgw; do \
		command -v $$program > /dev/null || missing=yes; \
	done; \
	if [[ -n $${missing:-} ]]; then \
		sudo=$$([[ $$(id -u) == 0 ]] || echo sudo); \
		$$sudo apt-get update -qq; \
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			ceph-mon ceph-osd radosgw > /dev/null; \
	fi

lint: $(VENV)/.dev-installed ## Check format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.dev-installed ## Apply format and lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.dev-installed ## mypy --strict on the package
	$(BIN)/mypy

check: lint types test ## Everything that needs no further environment

# The reference, PyTorch and JAX weigh gigabytes: one environment apart from .venv serves both.
$(PARITY_VENV)/.installed: $(PINS) requirements/parity.txt
	$(PYTHON) -m venv $(PARITY_VENV)
	@echo "Installing into $(PARITY_VENV) (the reference, PyTorch and JAX: some minutes, once)"
	$(PARITY_VENV)/bin/python -m pip install $(PIP_FLAGS) --constraint $(CONSTRAINTS) \
		--requirement requirements/parity.txt --editable ".[test,jax,torch]"
	@touch $@

parity: $(PARITY_VENV)/.installed ## Compare with the reference implementation, print the table
	$(PARITY_VENV)/bin/python -m benchmarks.parity $(PARITY_ARGS)

backends: $(PARITY_VENV)/.installed ## Compare the JAX and PyTorch backends with TensorFlow
	$(PARITY_VENV)/bin/python -m benchmarks.backends $(BACKENDS_ARGS)

# OpenCV is nothing that users or tests need.
$(QUALITY_VENV)/.installed: $(PINS) requirements/quality.txt
	$(PYTHON) -m venv $(QUALITY_VENV)
	@echo "Installing into $(QUALITY_VENV) (classical segmentation: a minute or two, once)"
	$(QUALITY_VENV)/bin/python -m pip install $(PIP_FLAGS) --constraint $(CONSTRAINTS) \
		--requirement requirements/quality.txt --editable .
	@touch $@

quality: $(QUALITY_VENV)/.installed ## Measure the packaged model on BSDS=FOLDER beside classical methods
	$(QUALITY_VENV)/bin/python -m benchmarks.tiny_quality $(BSDS) $(QUALITY_ARGS)

scale: $(VENV)/.dev-installed ## Measure planning, resuming, the driver and eight workers; without a GPU
	$(BIN)/python -m benchmarks.scale $(SCALE_ARGS)

# The peers: the reference, Hugging Face transformers and KerasHub, some gigabytes.
$(BENCH_VENV)/.installed: $(PINS) requirements/bench.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	@echo "Installing into $(BENCH_VENV) (the peers: some minutes, once)"
	$(BENCH_VENV)/bin/python -m pip install $(PIP_FLAGS) --constraint $(CONSTRAINTS) \
		--requirement requirements/bench.txt --editable ".[test]"
	@# As pip does for users, whose start is timed.
	-@$(BENCH_VENV)/bin/python -W ignore -m compileall -q -j 0 $(BENCH_VENV)/lib > /dev/null
	@touch $@

bench: $(BENCH_VENV)/.installed ## Compare the speed with the peers, write the tables; goes on if cut off
	$(BENCH_VENV)/bin/python -m benchmarks.bench $(BENCH_ARGS)

work: $(VENV)/.dev-installed ## Count operations, calls and bytes of a photo, compare with those written down
	$(BIN)/python -m benchmarks.work_guard
	$(BIN)/python -m pytest -m work tests/benchmarks $(PYTEST_ARGS)

clean: ## Remove environments, caches and the demo's output
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov amg-demo site
