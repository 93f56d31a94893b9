# Two commands on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTERS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Modules are compiled when they are first imported, and kept: else hundreds of processes of the tests compile all anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test thorough crash check verify clean

demo: $(VENV)/.installed  ## the transience study on the embedded default: verdict and figure
	$(BIN)/ebbtide run transience --preset quick

test: $(VENV)/.installed-test  ## every check and every test, on two cores (TESTERS=0: one test after the other)
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

thorough: $(VENV)/.installed-test  ## before a release: everything, with many more examples (some hours)
	EBBTIDE_TESTS=thorough $(BIN)/python -m pytest -m "" -n $(TESTERS) --dist loadfile --no-loadscope-reorder

crash: $(VENV)/.installed-test  ## a run killed a hundred times at random moments (ten to twenty minutes)
	$(BIN)/python -m pytest -m crash -s

check: $(VENV)/.installed-test  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

verify: $(VENV)/.installed  ## exact checks without training
	$(BIN)/ebbtide verify

clean:  ## removes the environment and caches; runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ebbtide needs Python 3.11 to 3.13; call: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[dashboard]'
	touch $@

$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.installed
