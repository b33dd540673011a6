# make demo | make test | make lint: each makes .venv first when it is missing or old.
SHELL := /bin/bash
# The first Python that xdc_jax supports; override with `make PYTHON=...`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
  2>/dev/null && echo $$p && break; done)
INSTALLED := .venv/.installed

.PHONY: demo test lint
demo: $(INSTALLED)
	.venv/bin/python -m xdc_jax demo

test: $(INSTALLED)
	.venv/bin/python -m pytest -n 2 --dist worksteal

lint: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -W error::DeprecationWarning -c "import xdc_jax"

$(INSTALLED): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "xdc_jax needs Python 3.11 or 3.12 on the PATH (or make PYTHON=...)"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet -r requirements.txt
	.venv/bin/python -m pip install --quiet --no-deps --editable .
	touch $(INSTALLED)
