# `make demo` and `make test` need Python 3.10+ with pip and venv, and nothing else.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := build/docs
REFERENCE := build/reference
MODELS := docs/pictures/gpt2.py docs/pictures/resnet50.py docs/pictures/lstm.py
SOURCES := $(shell find tracer examples docs -name '*.py' -o -name '*.md' -o -name '*.sql' -o -path '*/templates/*' -type f)
CODE := tracer tests examples benchmarks docs setup.py

.DELETE_ON_ERROR:
.PHONY: demo test docs bench format lint types pytest clean

demo: $(DOCS)/index.html
	@echo
	@echo "The documentation, its examples with their pictures and timelines:"
	@echo "    $(CURDIR)/$(DOCS)/index.html"
	@echo "Trace a script of your own:"
	@echo "    $(BIN)/tracer run script.py"

docs: $(DOCS)/index.html

$(DOCS)/index.html: $(READY) $(SOURCES)
	$(BIN)/python docs/generated/pages.py $(REFERENCE)
	$(BIN)/tracer docs build docs $(REFERENCE) examples $(MODELS) -o $(DOCS) -j 2
	$(BIN)/python docs/generated/images.py $(DOCS) docs/images
	@touch $@

test: format lint types pytest

# Most of an hour; the JSON is what the documentation's page of comparisons is made from. What is not
# installed (torchlens is the extra `bench`) is said to be. Ctrl-C keeps what there is by then.
bench: $(READY)
	$(BIN)/python benchmarks --json benchmarks/figures.json

format: $(READY)
	$(BIN)/ruff format --check $(CODE)

lint: $(READY)
	$(BIN)/ruff check $(CODE)

types: $(READY)
	$(BIN)/mypy

pytest: $(READY)
	$(BIN)/python -m pytest

# Installed in place, so that edits count at once; again only when what is asked for has changed.
$(READY): setup.cfg setup.py pyproject.toml constraints.txt $(wildcard tracer/capture/*.c tracer/capture/*.h)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("tracer needs Python 3.10 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	cp autograd_tracer.pth "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@touch $@

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info $(VENV)
	find tracer tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f tracer/capture/_core*.so
