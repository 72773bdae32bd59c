# `make demo` and `make test` need Python 3.11+ and nothing else; everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUDIO := build/studio
# Markers of tests that need a server, a device or packages of their own, each with a target.
APART := vllm or gpu or ragas or langgraph_dev or ray or llamacpp or phoenix or gcs
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-vllm test-llamacpp test-gpu test-ragas test-ray test-phoenix test-gcs \
  test-langgraph-dev dev coverage soak lint type bench notebooks docs format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12

# pip first: an old one takes minutes to resolve these dependencies.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[all]" --group dev --group docs
	@touch $@

demo: $(STAMP)  ## the main job on the embedded model, in four steps
	$(BIN)/python -m examples.demo

test: $(STAMP)  ## lint, types, documentation and tests (under 12 minutes on two cores)
	$(MAKE) --no-print-directory -j3 lint type docs
	$(BIN)/python -m pytest -m "not slow and not ($(APART))" -n 2 --dist loadfile

test-all: $(STAMP) lint type docs  ## the slow tests too: examples and notebooks, with the embedded model
	$(BIN)/python -m pytest -m "not ($(APART))"

test-vllm: $(STAMP)  ## tests against a real vLLM, which DYNPRAG_VLLM_COMMAND starts (docs/vllm.md)
	$(BIN)/python -m pytest tests/vllm -m vllm -s

# An environment of its own: the server of `langgraph dev` needs other versions of some packages.
$(STUDIO)/.installed: pyproject.toml constraints.txt
	test -x $(STUDIO)/bin/python || $(PYTHON) -m venv $(STUDIO)
	$(STUDIO)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(STUDIO)/bin/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[studio]"
	@touch $@

dev: $(STUDIO)/.installed  ## the example graph in `langgraph dev`, for LangGraph Studio and the LangGraph SDK
	$(STUDIO)/bin/langgraph dev --no-browser

test-langgraph-dev: $(STAMP) $(STUDIO)/.installed  ## questions to the example graph in `langgraph dev`
	DYNPRAG_LANGGRAPH=$(STUDIO)/bin/langgraph $(BIN)/python -m pytest tests/test_langgraph_dev.py -m langgraph_dev -s

test-llamacpp: $(STAMP)  ## tests against a real llama.cpp server, which it installs
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[llamacpp]"
	$(BIN)/python -m pytest tests/llamacpp -m llamacpp

test-gpu: $(STAMP)  ## tests on a CUDA device, against the CPU
	$(BIN)/python -m pytest tests/test_gpu.py -m gpu

# In an environment on top of the other one, whose versions of openai and rich are newer than ragas accepts.
test-ragas: $(STAMP)  ## tests against ragas, which is installed into build/ragas
	test -x build/ragas/bin/python || $(PYTHON) -m venv build/ragas
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$(build/ragas/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/dynprag.pth
	build/ragas/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	build/ragas/bin/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[ragas]"
	build/ragas/bin/python -m pytest tests/langgraph_dynrag/evaluation -m ragas

test-ray: $(STAMP)  ## tests on a Ray cluster of two nodes on this machine (minutes); DYNPRAG_RAY_KILLS=N kills N nodes
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[ray]"
	$(BIN)/python -m pytest tests/llamaindex_prag/cluster tests/langgraph_dynrag/retrieval -m ray

# Phoenix has many packages, so it gets an environment of its own.
PHOENIX := build/phoenix
$(PHOENIX)/bin/phoenix:
	$(PYTHON) -m venv $(PHOENIX)
	$(PHOENIX)/bin/python -m pip install --quiet --progress-bar off arize-phoenix==20.26.1

test-phoenix: $(STAMP) $(PHOENIX)/bin/phoenix  ## tests against a real Phoenix server, which reads our traces back
	DYNPRAG_PHOENIX_COMMAND=$(PHOENIX)/bin/phoenix $(BIN)/python -m pytest tests/phoenix -m phoenix

# In an environment on top of the other one: gcsfs has many packages.
GCS := build/gcs
$(GCS)/.installed: $(STAMP)
	test -x $(GCS)/bin/python || $(PYTHON) -m venv $(GCS)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$($(GCS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/dynprag.pth
	$(GCS)/bin/python -m pip install --quiet --progress-bar off gcsfs==2026.10.1 gcp-storage-emulator==2026.7.19
	@touch $@

test-gcs: $(GCS)/.installed  ## tests of a store on gs://, against an emulator that it installs into build/gcs
	$(GCS)/bin/python -m pytest tests/llamaindex_prag/store -m gcs

coverage: $(STAMP)  ## the tests of `make test`, and which lines they run
	$(BIN)/python -m pytest -m "not slow and not ($(APART))" -n 2 --dist loadfile -q --cov --cov-report=term:skip-covered

soak: $(STAMP)  ## ten minutes of concurrent callers that leave, fail and are cancelled
	$(BIN)/python -m pytest tests/llamaindex_prag/test_soak.py -m slow -s

lint: $(STAMP)  ## ruff, and the layers of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

bench: $(STAMP)  ## the quick benchmark of the token loop (the others: python -m benchmarks.NAME --help)
	$(BIN)/python -m benchmarks.decode

notebooks: $(STAMP)  ## run the example notebooks again
	$(BIN)/python -m examples.notebooks.execute

# Not with --quiet, which also silences the warnings that --strict counts.
docs: $(STAMP)  ## the documentation as a site, in build/site (15 seconds); a broken link or reference fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
