# make demo: the whole way on real handwritten digits.   make test: the whole suite.   Each stands alone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.lirastore

.PHONY: demo test lint bench figures docs constraints clean

demo: $(STAMP)-demo
	$(BIN)/lirastore demo demo

test: $(STAMP)-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)-dev
	$(BIN)/python benchmarks/recompute.py
	$(BIN)/python benchmarks/attacks.py

# The pictures of the README, from the demo's store.
figures: demo
	$(BIN)/python docs/make_figures.py demo/digits.lira docs

# The reference pages, from the attacks' docstrings and the comments in queries/.
docs: $(STAMP)-dev
	$(BIN)/python docs/make_attacks.py docs

$(STAMP)-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lirastore needs Python 3.11 or newer; found %s: make PYTHON=python3.12 …" % sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	touch $@

constraints: $(STAMP)-dev
	{ echo '# Exact versions that the tests run with; used by the Makefile. Regenerate: make constraints'; \
	  $(BIN)/python -m pip freeze --exclude-editable; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) demo build dist *.egg-info
