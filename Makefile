# `make demo` and `make test` need only Linux, Python 3.10 or newer and internet access: they set up .venv first.

PYTHON ?= python3
VENV := .venv
CORE_VERSIONS := 2.5.1 2.4.12
BIN := $(VENV)/bin
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

# Tests and commands run in hundreds of processes: without byte code each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-full test-guides test-milvus test-milvus-whole test-browser test-gpu-wheel lint types docs bench benchmark clean

demo: $(VENV)/.train
	$(BIN)/semcut demo

# A process more than there are cores, up to eight, since tests wait for other processes. Neighbouring tests, which share
# what they train and build, stay in one process.
CORES := $(shell nproc)
PARALLEL := -n $(shell expr $(CORES) + 1) --maxprocesses 8 --dist worksteal
PYTEST := $(BIN)/python -m pytest $(PARALLEL)

# Tests sync thousands of files. In memory, where there is room for them, they need not wait for the disk, whose files
# `make test-full` tests.
MEMORY := /dev/shm
IN_MEMORY = $(shell [ -w $(MEMORY) ] && ! grep -q ' $(MEMORY) .*noexec' /proc/mounts && \
    [ "$$(df -Pk $(MEMORY) | awk 'END { print $$4 }')" -ge 2097152 ] && echo PYTEST_DEBUG_TEMPROOT=$(MEMORY))

# Every promised behaviour once; where the engine matters, once for each CPU engine.
test: $(VENV)/.dev
	$(IN_MEMORY) $(PYTEST)

# Everything. Beyond `make test`: twice the random examples of every property, a fault of every kind at every call that
# touches the disk, the GPU engines run on the CPU, minutes of killed writers and of load, Milvus, the browser, faiss-gpu.
test-full: $(VENV)/.milvus test-milvus-whole test-browser test-gpu-wheel
	HYPOTHESIS_PROFILE=thorough $(PYTEST) -m 'not milvus and not browser'
	HYPOTHESIS_PROFILE=thorough $(PYTEST) -m milvus tests/indexes/milvus tests/connector/milvus

# What users read, install and run: the demo's figure, every snippet of README and guides, the site, the wheel in a clean
# environment, programs of users as type checkers see them, and the check of a GPU, on the CPU.
test-guides: $(VENV)/.dev
	$(PYTEST) -m guides tests

# Installs a Milvus server (2.3.5 from PyPI), starts one on loopback for each test process, and stops it.
# test-full adds the tests marked long and twice the random examples.
test-milvus: $(VENV)/.milvus
	$(PYTEST) -m 'milvus and not long' tests/indexes/milvus tests/connector/milvus

# Milvus 2.4 and newer store an index in another layout. This runs the tests with two of their cores, which milvus-lite
# 2.4 and 2.5 contain, each in a separate environment; what a core cannot do is skipped, with the reason.
test-milvus-whole: $(CORE_VERSIONS:%=test-milvus-lite-%)

test-milvus-lite-%: $(VENV)-lite-%/.dev
	HYPOTHESIS_PROFILE=thorough $(VENV)-lite-$*/bin/python -m pytest $(PARALLEL) -m milvus tests/indexes/milvus

# The page of `semcut explore` in Chromium. If no Chromium is installed, Debian's is.
test-browser: $(VENV)/.dev
	for name in chromium chromium-browser google-chrome; do command -v $$name && exit; done; \
	    $(ROOT) apt-get update -qq && $(ROOT) apt-get install -y -qq --no-install-recommends chromium \
	    || { echo 'There is no Chromium here, and apt-get cannot install it: install one.'; exit 1; }
	$(BIN)/python -m pytest -m browser tests/browser

# The core with faiss-gpu in place of faiss-cpu, in a separate environment, without milvus-lite, which needs faiss-cpu.
# Needs no GPU; if there is one, FAISS's GPU engine is tested on it.
test-gpu-wheel: $(VENV)-gpu/.dev
	$(VENV)-gpu/bin/python -m pytest $(PARALLEL) tests/indexes --ignore tests/indexes/milvus

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.train
	$(BIN)/python scripts/bench_core.py
	$(BIN)/python scripts/bench_store.py

# Builds the guides and the API reference into site/; every warning is an error. Needs neither torch nor FAISS.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file .mkdocs.yml
	@echo 'Open $(CURDIR)/site/index.html, or with search: python3 -m http.server --directory site'

# Compares semcut with FAISS's own indexes on scanned digits, in under two minutes, and writes a report.
benchmark: $(VENV)/.train
	$(BIN)/python scripts/benchmark.py benchmark --quick

clean:
	rm -rf $(VENV) $(VENV)-gpu $(CORE_VERSIONS:%=$(VENV)-lite-%) build dist demo benchmark site .pytest_cache .mypy_cache .ruff_cache .hypothesis scripts/package/semcut.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,fast,train,benchmark]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.train
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,fast,train,pretrained,benchmark,explore,milvus-lite,onnx,timm,transformers,heif,dev,docs]'
	touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

$(VENV)/.milvus: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check milvus==2.3.5
	touch $@

$(VENV)-gpu/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)-gpu
	$(VENV)-gpu/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[gpu,fast,train,dev]'
	touch $@

$(VENV)-lite-%/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)-lite-$*
	$(VENV)-lite-$*/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,fast,train,benchmark,explore,milvus,dev]'
	$(VENV)-lite-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps milvus-lite==$*
	touch $@
