PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# A library that the tests load sets the process's locale to C: text stays UTF-8 all the same.
export PYTHONUTF8 := 1

.PHONY: demo test test-slow lint install clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m voxlift.app.cli.demo

test: $(STAMP) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info
