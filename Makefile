# Everything runs in .venv, which is made from constraints.txt on first use.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test core check bench mutations docs linkcheck clean

demo: $(READY)  ## write the picture gallery and say where it is
	$(BIN)/python examples/gallery.py gallery

test: $(READY)  ## the whole test suite
	$(BIN)/python -m pytest -n auto --dist worksteal

core: $(READY)  ## the core's tests alone
	$(BIN)/python -m pytest -n auto --dist worksteal tests/core

check: $(READY)  ## linters and the strict type checker
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY)  ## speed, memory and quality, measured side by side
	$(BIN)/python benchmarks/bench.py

mutations: $(READY)  ## break the library on purpose; the tests must notice
	$(BIN)/python benchmarks/mutations.py

docs: $(READY)  ## run every example of README and docs, then build the site
	$(BIN)/python -m pytest tests/test_docs.py
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo "The site is in docs/_build/html: open index.html."

linkcheck: $(READY)  ## ask the network whether the links of the docs lead somewhere
	@if $(BIN)/python -c "import socket; socket.create_connection(('arxiv.org', 443), 10)" 2>/dev/null; \
	then $(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/linkcheck; \
	else echo "There is no network; external links are not checked."; fi

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) gallery docs/_build docs/api docs/commands docs/outside
