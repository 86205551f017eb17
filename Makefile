# `make quickstart` and `make test` need Python 3.11 or newer, pip and the network; each makes its own environment.
PYTHON ?= python3
VENV ?= .venv
TEST_VENV ?= .venv-test
MMDET_VENV ?= .venv-mmdet
WORKSPACE ?=
PYTEST_ARGS ?=
# Each worker of the tests starts a Ray of its own, so more of them than two do not pay.
TEST_WORKERS ?= 2

CHECKED := llmdet pipelines detector cli tests benchmarks
# What needs more than `pip install` (vLLM, mmdet, a browser, real samples) is run by name: see CONTRIBUTING.md.
SELECT := not soak and not slow and not cluster and not vllm and not mmdet and not browser and not samples

.PHONY: help quickstart test mmdet lint format clean

help:
	@echo "make quickstart   install into $(VENV), then run the whole loop on bundled material (WORKSPACE=dir to choose where)"
	@echo "make test         install into $(TEST_VENV), then run the tests (PYTEST_ARGS=... is passed on)"
	@echo "make mmdet        install mmdet into $(MMDET_VENV), then let it read what is exported (about 3 minutes and 1.7 GB)"
	@echo "make lint         ruff format --check, ruff check, mypy"
	@echo "make format       let ruff format the code and mend what it can"
	@echo "make clean        remove the environments and all caches"

quickstart: $(VENV)/.installed-train
	$(VENV)/bin/llmdet-data quickstart $(if $(WORKSPACE),--workspace "$(WORKSPACE)")

test: $(TEST_VENV)/.installed-dev
	$(TEST_VENV)/bin/python -m pytest -m "$(SELECT)" -n $(TEST_WORKERS) $(PYTEST_ARGS)

mmdet: $(TEST_VENV)/.installed-dev
	PYTHON="$(PYTHON)" .ci/mmdet_env $(MMDET_VENV)
	LLMDET_MMDET_PYTHON="$(abspath $(MMDET_VENV))/bin/python" \
	  $(TEST_VENV)/bin/python -m pytest -m mmdet tests/consumers $(PYTEST_ARGS)

lint: $(TEST_VENV)/.installed-dev
	$(TEST_VENV)/bin/ruff format --check $(CHECKED)
	$(TEST_VENV)/bin/ruff check $(CHECKED)
	$(TEST_VENV)/bin/mypy

format: $(TEST_VENV)/.installed-dev
	$(TEST_VENV)/bin/ruff format $(CHECKED)
	$(TEST_VENV)/bin/ruff check --fix $(CHECKED)

clean:
	rm -rf $(VENV) $(TEST_VENV) $(MMDET_VENV) .venv-vllm .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

# A stamp says that its environment holds EXTRAS as pinned; only a change of these two files installs again.
$(VENV)/.installed-train: EXTRAS = train
$(TEST_VENV)/.installed-dev: EXTRAS = train,dev
$(VENV)/.installed-train $(TEST_VENV)/.installed-dev: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; $(PYTHON) is %d.%d. Try: make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "Installing llmdet-data[$(EXTRAS)] into $(@D): about 2 minutes and 2.5 GB"
# Debian keeps `ensurepip` apart from Python, so that `venv` can be broken where pip works; virtualenv needs only pip.
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(@D); else \
	  $(PYTHON) -m pip install --quiet --target $(@D)/bootstrap virtualenv && \
	  PYTHONPATH=$(@D)/bootstrap $(PYTHON) -m virtualenv --quiet $(@D); fi
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@
