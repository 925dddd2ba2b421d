# Two commands matter: `make demo` and `make test`. Both create .venv on first use.
# The first Python that really runs (a pyenv shim may not) and is of a version we support.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
BIN := $(CURDIR)/.venv/bin
CORES ?= all
CONFIG ?= configs/demo.yaml
RESULTS ?= results
PORT ?= 5000
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help env demo test dashboard lint docs bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "wsol needs Python 3.11 to 3.13 and found none: install one, or say make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,oracles]'
	@touch $@

env: .venv/installed  ## the environment alone, in .venv

demo: .venv/installed  ## slides, training, maps, numbers, report and MLflow on synthetic slides (some minutes)
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG)
	@$(BIN)/wsol where --config $(CONFIG)

test: .venv/installed  ## the whole test suite
	$(BIN)/pytest -n 2 --dist loadfile

dashboard: .venv/installed  ## open the MLflow dashboard of the demo on 127.0.0.1
	$(BIN)/wsol dashboard --results $(RESULTS) --port $(PORT)

lint: .venv/installed  ## ruff, formatting, types; snakefmt and Snakemake's own linter
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow && $(BIN)/snakemake --lint

docs: .venv/installed  ## the API reference as HTML pages in site/api
	$(BIN)/python docs/api.py

bench: .venv/installed  ## every benchmark: each prints ratios against a named peer
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove results and logs (not the environment)
	rm -rf results logs .snakemake
