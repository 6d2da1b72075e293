# The two commands of a fresh machine are `make demo` and `make test`; `make check` is the developer's loop.
PYTHON ?= python3
BIN := .venv/bin
# Programs start as modules: pip writes the path of .venv into their first lines, and a space ends it there.

.PHONY: demo test check format install

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "t2ipal needs Python 3.11 to 3.13: make PYTHON=python3.11 ..."'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: install
	$(BIN)/python jobs/demo.py --output runs/demo

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pyright
	$(BIN)/python -m pytest

format: install
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .
