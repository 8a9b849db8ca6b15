# make demo and make test set up everything they need, once; nothing else to install.
VENV ?= .venv
PYTHON ?= python3
TEST_PROCESSES ?= 2
PYTEST = $(VENV)/bin/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile
PIP = $(VENV)/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt
RUN_READY = $(VENV)/.ready-to-run
TEST_READY = $(VENV)/.ready-to-test

.PHONY: demo test test-all lint docs notebooks bench bench-quick peers clean

demo: $(RUN_READY)
	$(VENV)/bin/grandbatch demo

test: $(TEST_READY)
	$(PYTEST) -m "not slow" $(PYTEST_FLAGS)

test-all: $(TEST_READY)
	$(PYTEST) $(PYTEST_FLAGS)

lint: $(TEST_READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(TEST_READY)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

notebooks: $(TEST_READY)
	$(VENV)/bin/python notebooks/make.py

# what all of them share, and what compares two trees
BENCHMARKS = $(filter-out benchmarks/measuring.py benchmarks/quick.py, $(wildcard benchmarks/*.py))

bench: $(TEST_READY)
	for script in $(BENCHMARKS); do echo $$script; $(VENV)/bin/python $$script || exit 1; done

bench-quick: $(TEST_READY)
	$(VENV)/bin/python benchmarks/quick.py $(if $(BEFORE),--before $(BEFORE))

PEERS = $(VENV)/peers
PIP_PEERS = $(PEERS)/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt

peers: $(TEST_READY) $(PEERS)/.ready
	$(VENV)/bin/python benchmarks/peers/compare.py --python $(PEERS)/bin/python

$(PEERS)/.ready: benchmarks/peers/requirements.txt constraints.txt | $(RUN_READY)
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PIP_PEERS) torch==2.13.0
	$(PIP_PEERS) --requirement benchmarks/peers/requirements.txt
	touch $@

$(RUN_READY): pyproject.toml constraints.txt
	@echo "installing into $(VENV), once: about a minute"
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable ".[rl]"
	touch $@

$(TEST_READY): $(RUN_READY)
	$(PIP) --editable ".[docs,marl,metrics,notebooks,onnx,rl,tensorboard,test,dev]"
	touch $@

clean:
	rm -rf $(VENV) demo bench-results site
