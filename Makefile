# Two commands are all a new machine needs: `make demo` and `make test`. Both create .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test check fmt clean

setup: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	touch $@

demo: setup  ## draw the embedded set, train yolov5n-biformer on it, validate, detect
	$(BIN)/python -m tools.demo

# Two processes with a thread each, as many as the suite is meant for: much of it is short work that one thread does
test: setup  ## the whole suite, without a network
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: setup  ## what CI runs: lint, format, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) test

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
