# Two commands do all the set-up: `make first-study` runs the main job, `make test` the tests.
# Needed: Python 3.11 or newer with venv and pip, and make. The labels' generator (extra `generate`) also needs the
# system's libgomp, which Debian and Ubuntu call libgomp1.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --disable-pip-version-check --quiet -c constraints.txt $(PIP_ARGS)

# venv writes pip last: an environment without it is not finished, and making it again finishes it.
define VENV_READY
$(RUN) -m pip --version >/dev/null 2>&1 || { \
  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
    echo "equiscale needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1 | tail -n 1):" \
         "name another one, as in 'make PYTHON=python3.12 $(MAKECMDGOALS)'." >&2; exit 2; }; \
  $(PYTHON) -m venv $(VENV); }
endef

.PHONY: help first-study test lint types contracts docs check

help:
	@echo "make first-study   install what it needs, train the first study, write results/first/report.html"
	@echo "make test          install what it needs, run the tests (ARGS='-k name' chooses some)"
	@echo "make check         lint, types, contracts, docs and tests"
	@echo "make lint | types | contracts | docs   one of them"

first-study: $(VENV)/installed-all
	@$(RUN) -m equiscale.cli run studies/first.py --workers 2

# One thread per process: two of them make small models slower, not faster.
test: $(VENV)/installed-dev
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 $(ARGS)

lint: $(VENV)/installed-dev
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .

types: $(VENV)/installed-dev
	@$(RUN) -m mypy

contracts: $(VENV)/installed-dev
	@$(VENV)/bin/lint-imports --no-logo

docs: $(VENV)/installed-dev
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

check: lint types contracts docs test

# A stamp says what was installed from which pyproject.toml and constraints.txt: as long as neither changes, pip is not
# called. It is written last, so that an interrupted installation is taken up again.
$(VENV)/installed-all: pyproject.toml constraints.txt
	@$(VENV_READY)
	@echo "installing equiscale[all] into $(VENV) (once; some minutes)"
	@$(PIP) -e '.[all]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt
	@$(VENV_READY)
	@echo "installing equiscale[dev,generate] into $(VENV) (once; some minutes)"
	@$(PIP) -e '.[dev,generate]'
	@touch $(VENV)/installed-all $@
