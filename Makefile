# The commands of Convo. `make` lists them; convo_project/launch.py implements them.
# Any variable of .env.example can be given: make up PORT=8001 CONVO_HOME=/srv/convo

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
LAUNCH := $(PY) -m convo_project.launch

# Python keeps its compiled files, whatever the shell says. Otherwise each process spends seconds on compiling.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up down test test-long test-browser mutants lint style types floors audit bench shell lock compile run-venv
.PHONY: dev-venv messages

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: run-venv ## install what is missing, start Convo, and run it until Ctrl-C
	@$(LAUNCH) up

down: ## stop a running `make up`, or what a killed one left behind; keeps the data
	@if [ -x $(PY) ]; then $(LAUNCH) down; else echo "Convo was never started here."; fi

test: dev-venv ## run the tests on a separate database: make test ARGS="-k sweep"
	@$(LAUNCH) test -- --ignore tests/browser $(ARGS)

test-long: dev-venv ## run the long races and random inputs, then the mutation tests
	@LONG_TESTS=1 $(LAUNCH) test -- --ignore tests/browser -m "long or hypothesis" --timeout 3600 $(ARGS)
	@$(if $(ARGS),,$(LAUNCH) mutants)

test-browser: dev-venv ## run the browser tests (needs Chromium)
	@$(LAUNCH) test -- -n 2 -m browser tests/browser $(ARGS)

mutants: dev-venv ## put small faults into what decides; the tests must notice: make mutants ARGS="--module core/sql"
	@$(LAUNCH) mutants -- $(ARGS)

lint: style types floors ## check format, style, types, import layers, migrations and deployment settings

style: dev-venv
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: dev-venv
	SECRET_KEY=unused CREDENTIALS_KEYS=unused DATABASE_URL=postgres:///unused $(PY) -m mypy
	$(PY) -m mypy --config-file conversations/client/pyproject.toml conversations/client

floors: dev-venv
	$(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint()'
	$(PY) manage.py makemigrations --check --dry-run
	PUBLIC_BASE_URL=https://convo.example $(PY) manage.py check --deploy

bench: dev-venv ## measure a separate instance: make bench BENCH=program ARGS="--rounds 5"
	@$(LAUNCH) bench -- $(ARGS)

audit: dev-venv ## look for known weaknesses in our code (bandit) and in the locked packages (pip-audit; needs the internet)
	$(PY) -m bandit --quiet --severity-level medium --configfile pyproject.toml --recursive channels_out conversations convo_project memory
	$(PY) -m pip_audit --requirement requirements.lock --require-hashes --disable-pip

compile: run-venv ## compile all modules and languages, for an image that is read-only
	@$(PY) -m convo_project.languages
	@$(PY) -m compileall -q -j 0 $(VENV)/lib channels_out conversations convo_project memory manage.py

messages: dev-venv ## collect the sentences that are to be translated into locale/
	@SECRET_KEY=unused CREDENTIALS_KEYS=unused DATABASE_URL=postgres:///unused $(PY) -m convo_project.catalogues

shell: run-venv ## open a Python shell with the models imported
	@$(PY) manage.py shell

lock: dev-venv ## resolve the dependencies again: make lock ARGS=--upgrade
	@$(COMPILE) pyproject.toml $(ARGS) -o requirements.lock
	@$(COMPILE) pyproject.toml $(ARGS) --group dev -c requirements.lock -o requirements-dev.lock

COMPILE = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-strip-extras

# .venv holds a copy of the lock that was installed last. An interrupted installation, or one from another lock, is
# repeated. The lock for development contains everything of the other one. Modules are compiled when they are imported,
# since few of them are. uv, one of the development tools, installs these in a tenth of the time; pip takes over where uv
# fails (it does not read pip's settings).
run-venv:
	@$(call install,requirements.lock,,$(PIP) -r requirements.lock)

dev-venv:
	@$(call install,requirements-dev.lock,requirements.lock,$(UV) || $(PIP) -r requirements-dev.lock)

PIP = $(PY) -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes
UV = awk '/^[^ ]/ { its = /^uv==/ } its' requirements-dev.lock > $(VENV)/uv.lock \
	&& $(PIP) -r $(VENV)/uv.lock \
	&& $(PY) -m uv pip install --quiet --require-hashes --python $(PY) -r requirements-dev.lock

define install
	[ -x $(PY) ] && cmp -s $(1) $(VENV)/$(1) && exit 0; \
	set -e; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
			echo "Convo needs Python 3.11 or newer; '$(PYTHON)' is not. Name another one: make up PYTHON=python3.12" >&2; \
			exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "'$(PYTHON)' cannot create virtual environments. On Debian, run: apt-get install python3-venv" >&2; \
			exit 1; }; \
		echo "Creating $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear $(VENV); \
	fi; \
	echo "Installing the packages of $(1); this happens once"; \
	$(3); \
	for lock in $(1) $(2); do cp $$lock $(VENV)/$$lock; done
endef
