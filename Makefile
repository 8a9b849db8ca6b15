# make demo and make test set up everything they need, once; nothing else to install.
VENV ?= .venv
PYTHON ?= python3
PIP = $(VENV)/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt
RUN_READY = $(VENV)/.ready-to-run
TEST_READY = $(VENV)/.ready-to-test

.PHONY: demo test lint bench clean

demo: $(RUN_READY)
	$(VENV)/bin/grandbatch demo

test: $(TEST_READY)
	$(VENV)/bin/python -m pytest

lint: $(TEST_READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(TEST_READY)
	for script in benchmarks/*.py; do $(VENV)/bin/python $$script || exit 1; done

$(RUN_READY): pyproject.toml constraints.txt
	@echo "installing into $(VENV), once: about a minute"
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable ".[rl]"
	touch $@

$(TEST_READY): $(RUN_READY)
	$(PIP) --editable ".[marl,metrics,notebooks,rl,tensorboard,test,dev]"
	touch $@

clean:
	rm -rf $(VENV) demo bench-results
