# `make` alone lists the targets: every line `target: ... ## help` below is one.
PYTHON ?= python3
SERVE ?= 1
JOBS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env book test lint format browser assets bench exercises address lab clean distclean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## make .venv with the package, the book's tools and the tests' (PYTHON=python3)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	  "The book needs Python 3.11 or newer; $(PYTHON) is %d.%d. Try make env PYTHON=/path/to/newer/python3" \
	  % sys.version_info[:2])'
	@rm -f $@
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# setuptools warns of every package whose folder is in the working directory.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt \
	  --editable ".[book,test]"
	@touch $@

book: env ## run what is stale, build the book and serve it (SERVE=0: only build)
	@$(BIN)/python -m book.extensions.build $(if $(filter 0 no false,$(SERVE)),,--serve)

test: env browser assets lint ## every check: linters, then pytest with the book in a browser (JOBS=2)
	@# Threads that wait for each other on cores shared with other tests take many times as long.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope

lint: env ## ruff, mypy and the floors that imports keep to
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: env ## format the code and strip the notebooks
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/python -m book.extensions.strip

browser: env ## find Chromium for the tests, installing it where that is possible
	@$(BIN)/python tests/book/browser.py

assets: env ## fetch the scripts that the pages serve (MathJax, widgets)
	@$(BIN)/python -m book.extensions.assets

bench: env ## measure what the project promises, into benchmarks/results/
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/curvature.py
	$(BIN)/python benchmarks/autoencoders.py
	$(BIN)/python benchmarks/epochs.py
	$(BIN)/python benchmarks/safeguards.py
	$(BIN)/python benchmarks/layers.py
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/equality.py
	$(BIN)/python benchmarks/parallel.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/book_time.py
	$(BIN)/python benchmarks/drop_in.py

exercises: env ## generate the students' notebooks from course/source
	@$(BIN)/python -m course.release

address: env ## set the book's public address everywhere: make address URL=https://...
	@$(BIN)/python -m book.extensions.address "$(URL)"

lab: env ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab chapters

clean: ## remove what was built: the book, executed notebooks, caches
	rm -rf _build node_modules book/static/vendor .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove the environment too
	rm -rf .venv *.egg-info
