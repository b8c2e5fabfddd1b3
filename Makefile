# make lab: set up everything and open JupyterLab. make help lists the rest.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: help lab test check bench docs notebooks gallery clean
.DELETE_ON_ERROR:

help:
	@echo "make lab    set up .venv and open JupyterLab on the Explorer"
	@echo "make test   run the tests            (ARGS='-k spectrum' selects some)"
	@echo "make check  formatting, lint, types"
	@echo "make bench  run every benchmark"
	@echo "make docs   build the documentation site; warnings are errors"
	@echo "make notebooks  run the notebooks, store their results, take the pictures"
	@echo "make gallery  take the pictures of the gallery"
	@echo "make clean  remove .venv and what tools left behind"

lab: .venv/.lab
	@$(BIN)/mrviz lab $(ARGS)

test: .venv/.test
	@$(BIN)/python -m pytest $(ARGS)

check: .venv/.dev
	@echo "Formatting" && $(BIN)/ruff format --check .
	@echo "Lint" && $(BIN)/ruff check .
	@echo "Types" && $(BIN)/mypy

# Those that take 10 minutes or more are run by themselves.
LONG := benchmarks/autotune.py benchmarks/prediction.py benchmarks/reprogramming.py

bench: .venv/.lab .venv/.cluster
	@set -e; for script in $(filter-out $(LONG),$(wildcard benchmarks/[!_]*.py)); do \
		test -e "$$script" || { echo "There are no benchmarks yet."; break; }; \
		echo "== $$script"; $(BIN)/python "$$script" $(ARGS); \
	done

docs: .venv/.docs
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs && echo "build/docs/index.html"

notebooks: .venv/.test
	@$(BIN)/python tools/render.py

gallery: .venv/.test
	@$(BIN)/python tools/gallery.py

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per extra: installed again only when pyproject.toml changes.
.venv/.%: pyproject.toml | $(BIN)/pip
	@echo "Installing mrviz[$*] into .venv (PyTorch and JupyterLab: some minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[$*]"
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "mrviz needs Python 3.11 or newer, but '$(PYTHON)' is not ($$($(PYTHON) --version 2>&1))."; \
		echo "Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
