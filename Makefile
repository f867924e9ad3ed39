PYTHON ?= python3
BIN := .venv/bin

.PHONY: install reproduce test test-slow test-wheel check docs benchmark clean
.DEFAULT_GOAL := install

install: .venv/.installed

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info[:3] < (3, 14))' || \
		{ echo "icsbench needs Python 3.11.4 to 3.13; try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'
	$(BIN)/python -m pip install --progress-bar on --editable '.[dev]'
	@touch $@

# the debate at a small size on embedded data: runs, verdicts, figures and page, in minutes on two cores
reproduce: install
	$(BIN)/icsbench reproduce scale=demo

test: install
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

# the wheel in a clean environment, with every python3.11 to 3.13 of the PATH that can import torch
test-wheel: install
	$(BIN)/python -m pytest -m 'slow or not slow' tests/test_wheel.py

# lint, format and types
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# the site, into site/; a broken link is an error
docs: install
	$(BIN)/mkdocs build --strict

benchmark: install
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf .venv build dist site
