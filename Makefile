# `make demo` and `make test` need nothing but Python 3.10 or newer and the network: they set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test test-long test-milvus test-browser test-devices test-gpu-wheel lint types bench benchmark clean

demo: $(VENV)/.train
	$(BIN)/semcut demo

# What searches an index runs twice: with the compiled engine, which is the default, and with FAISS's scanner.
WITH_ENGINE := base cli_indexes crash damage digits faiss_index fuzz life many_users store

test: $(VENV)/.dev
	$(BIN)/python -m pytest
	SEMCUT_ENGINE=faiss $(BIN)/python -m pytest $(WITH_ENGINE:%=tests/indexes/test_%.py)

test-long: $(VENV)/.dev
	$(BIN)/python -m pytest -m long

# Installs a real Milvus server (2.3.5 from PyPI), starts it on loopback, tests against it and stops it.
test-milvus: $(VENV)/.milvus
	$(BIN)/python -m pytest -m milvus

# The page of `semcut explore` in a real browser. Where Chromium is not there, Debian's is installed.
test-browser: $(VENV)/.dev
	for name in chromium chromium-browser google-chrome; do command -v $$name && exit; done; \
	    $(ROOT) apt-get update -qq && $(ROOT) apt-get install -y -qq --no-install-recommends chromium \
	    || { echo 'There is no Chromium here, and apt-get cannot install it: install one.'; exit 1; }
	$(BIN)/python -m pytest -m browser tests/browser

# The core with the engines for cards, on the processor; what is marked gpu runs on a card, where there is one.
test-devices: $(VENV)/.dev
	SEMCUT_ENGINE=torch $(BIN)/python -m pytest $(WITH_ENGINE:%=tests/indexes/test_%.py) tests/indexes/test_devices.py
	SEMCUT_ENGINE=flat $(BIN)/python -m pytest $(WITH_ENGINE:%=tests/indexes/test_%.py)

# The core with faiss-gpu in place of faiss-cpu, in an environment of its own, which cannot have milvus-lite since that
# brings faiss-cpu. Needs no card; where there is one, FAISS's engine for cards is tested on it.
test-gpu-wheel: $(VENV)-gpu/.dev
	$(VENV)-gpu/bin/python -m pytest tests/indexes --ignore tests/indexes/milvus

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.train
	$(BIN)/python scripts/bench_core.py
	$(BIN)/python scripts/bench_store.py

# Under two minutes: semcut beside FAISS's own indexes on scanned digits, and a page about it.
benchmark: $(VENV)/.train
	$(BIN)/python scripts/benchmark.py benchmark --quick

clean:
	rm -rf $(VENV) $(VENV)-gpu build dist demo benchmark .pytest_cache .mypy_cache .ruff_cache .hypothesis semcut.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,fast,train,benchmark]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.train
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,fast,train,pretrained,benchmark,explore,milvus-lite,dev]'
	touch $@

$(VENV)/.milvus: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check milvus==2.3.5
	touch $@

$(VENV)-gpu/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)-gpu
	$(VENV)-gpu/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[gpu,fast,train,dev]'
	touch $@
