# Two commands are all: `make up` shows Spillway at work, `make test` proves it. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Many tests wait for processes, so three files at a time on two cores, each with a stack of its own. A failure is told when
# it happens, and the slowest tests at the end. What is slow is left to `make prove`.
TOGETHER := --numprocesses 3 --dist loadfile --no-loadscope-reorder --instafail --durations 15 -m "not prove"

.DEFAULT_GOAL := help
.PHONY: help up down demo test check prove steady fix lock schemas clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(READY) ## start the whole stack in the background, send requests through it, show answers and cost
	@$(BIN)/spillway up --detach
	@$(MAKE) --no-print-directory demo
	@echo
	@echo "It goes on running. Try:  $(BIN)/spillway ask \"Why is the sky blue?\"    Stop it with:  make down"

demo: $(READY)
	@$(BIN)/spillway demo

down: $(READY) ## stop the stack; its data stays in .spillway
	@$(BIN)/spillway down

test: $(READY) check ## everything that must hold, on real processes
	@$(BIN)/pytest $(TOGETHER)

prove: $(READY) ## all that must hold, with fresh random examples and kills (PART=name, SEED=number, FRESH=1)
	@$(BIN)/python bench/prove.py --suite='$(TOGETHER)' \
	  $(if $(PART),--part $(PART)) $(if $(SEED),--seed $(SEED)) $(if $(FRESH),--fresh)

steady: $(READY) ## the tests of `make test`, N=10 times beside a busy core
	@$(BIN)/python bench/steady.py --suite='$(TOGETHER)' $(if $(N),--runs $(N))

check: $(READY) ## formatting, lint, types, layers, schemas that are current and break nothing published
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m schemas.export --check
	@$(BIN)/python -m app.asyncapi --check
	@$(BIN)/python -m schemas.compatibility

fix: $(READY) ## format, and repair what lint can repair
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

schemas: $(READY) ## write the JSON Schemas and the AsyncAPI document anew
	@$(BIN)/python -m schemas.export
	@$(BIN)/python -m app.asyncapi

lock: $(READY) ## resolve the dependencies anew
	@$(BIN)/pip install --quiet uv
	@for set in "runtime:--extra tokenizer --extra traces" "dev:--extra devstack --extra tokenizer --extra traces --group dev"; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    $${set#*:} pyproject.toml --output-file requirements/$${set%%:*}.lock; done

clean: ## remove the environment and the stack's data
	rm -rf $(VENV) .spillway

$(READY): requirements/dev.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) --version) is too old: install Python 3.11 or newer, or say make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: install it (on Debian: python3-venv)."; exit 1; }
	@command -v java >/dev/null || { echo "Java is missing: install a JDK of version 17 or newer."; exit 1; }
	@command -v mvn >/dev/null || { echo "Maven is missing: install it (the command mvn)."; exit 1; }
	@echo "setting up the Python environment in $(VENV) (once; about 700 MB)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
