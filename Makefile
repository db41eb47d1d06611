PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup train demo test test-slow benchmark lint format clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv and install what constraints.txt says, if missing or stale

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed, e.g. make setup PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

train: $(READY)  ## train the learned-prior CVAE on MNIST; ARGS='model=vae …' overrides
	$(BIN)/python -m cvae.train $(ARGS)

demo: $(READY)  ## a page that writes your number: from the latest run that can, or a new one
	$(BIN)/python -m cvae.demo

test: $(READY)  ## the fast tests
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

test-slow: $(READY)  ## the slow tests: kills, signals, several processes
	$(BIN)/python -m pytest -n 2 -m slow $(ARGS)

benchmark: $(READY)  ## a training step's speed against a bare loop and the floor
	$(BIN)/python -m cvae.benchmark $(ARGS)

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(READY)  ## let ruff format and mend
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:  ## remove the environment and the caches, keep data and outputs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
