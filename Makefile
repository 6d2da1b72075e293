# The two commands of a fresh machine are `make demo` and `make test`; `make check` is the developer's loop.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check format install

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "t2ipal needs Python 3.11 to 3.13: make PYTHON=python3.11 ..."'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: install
	$(BIN)/python jobs/demo.py --output runs/demo

test: install
	$(BIN)/pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/pytest

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
