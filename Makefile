# Every target does its own set-up: a virtual environment in .venv with the pinned
# packages of requirements.txt, made on first use and again when they change.
# All it needs is a Python >= 3.11. Choose one with `make test PYTHON=python3.12`.

PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -q
# A file's tests share what they make, so one worker runs them all.
PYTEST_FLAGS ?= -n 2 --dist=loadfile
CONFIG ?= configs/shapes.py
WORKDIR ?= runs/demo
# Training on a CPU is faster with them: see benchmarks/cpu_settings.py.
CPU_SETTINGS := GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
	XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=-individual_convolution

# What the quick second passes run: the tests that build modules.
MODULE_TESTS := $(wildcard $(patsubst %,tests/test_%.py, \
	channel_attention codes compact_bilinear divide_and_encode gmu head \
	image_vector kernel_network linen low_rank_bilinear mobilenet modal_aware \
	multimodal_hashing nnx_drop_in position_kernel resnet text_vector transformers \
	update))

.PHONY: help setup demo test test-slow test-tree test-py312 lint format \
	notebooks requirements clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## make the virtual environment

demo: $(STAMP) ## train and compare three models on the embedded shapes data
	$(CPU_SETTINGS) $(BIN)/python -m modal_aware_jax.compare --config=$(CONFIG) \
		--methods=modal_aware,image,text --bits=32 --seeds=0 --workdir=$(WORKDIR)

test: lint ## lint, then the tests but the slow ones
	$(PYTEST) $(PYTEST_FLAGS) -m "not slow"

test-slow: $(STAMP) ## the slow tests only
	$(PYTEST) -m slow

test-tree: $(STAMP) ## the module tests in Flax's tree mode
	NNX_GRAPH_MODE=false NNX_GRAPH_UPDATES=false \
		$(PYTEST) $(PYTEST_FLAGS) -m "not slow" $(MODULE_TESTS)

test-py312: ## the module tests on Python 3.12 with the newest flax and jax
	$(MAKE) --no-print-directory test-modules \
		VENV=.venv-py312 PYTHON="$(or $(PYTHON),python3.12)"

.PHONY: test-modules
test-modules: $(STAMP)
	$(PYTEST) $(PYTEST_FLAGS) -m "not slow" $(MODULE_TESTS)

lint: $(STAMP) ## ruff check and ruff format --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml requirements.txt
	@python="$(PYTHON)"; \
	for candidate in python3 python3.12 python3.11 python3.13 python3.14 python; do \
	  test -z "$$python" || break; \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    2>/dev/null && python="$$candidate"; \
	done; \
	test -n "$$python" || { \
	  echo "No Python >= 3.11 found. Install one, or name it:" \
	    "make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$python is not a Python >= 3.11." >&2; exit 1; }; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$$python cannot make virtual environments: install its venv module" \
	    "(on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }; \
	echo "Setting up $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--require-hashes -r requirements.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@

notebooks: $(STAMP) ## run the notebooks and keep their outputs
	$(BIN)/python notebooks/execute.py

requirements: ## pin the newest packages again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --quiet --upgrade \
		--custom-compile-command "make requirements" \
		--extra test --extra lance --extra hub --extra notebooks --extra sentence \
		--extra matlab \
		--no-emit-package modal-aware-jax --output-file requirements.txt pyproject.toml

clean: ## remove the virtual environments and caches, keep runs/
	rm -rf .venv .venv-py312 .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
