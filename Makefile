PYTHON ?= python3
BIN := .venv/bin
# A library that the tests load sets the locale of the process to C: text stays UTF-8.
export PYTHONUTF8 := 1

.PHONY: demo test test-slow test-browser docs lint install clean

# The package alone, which is what `make demo` needs.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# The package with the tools that test it.
.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

install: .venv/.installed

demo: .venv/.installed
	$(BIN)/python -P -m voxlift.app.cli.demo

test: .venv/.installed-dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow

# The cases of a page, in Chromium; fails without one.
test-browser: .venv/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(BIN)/python -m pytest -m browser tests/browser

# The site, in build/site; broken links and keys without a description are errors.
docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist src/*.egg-info
