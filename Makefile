# What one does with Convo. `make` lists it; what is behind each command stands in convo_project/launch.py.
# Any variable of .env.example can be given: make up PORT=8001 CONVO_HOME=/srv/convo

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
LAUNCH := $(PY) -m convo_project.launch

# Python keeps what it compiled, whatever the shell says: else each of our processes spends seconds on compiling it all.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up down test test-browser lint style types floors bench shell lock run-venv dev-venv

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: run-venv ## set up what is missing and run Convo until Ctrl-C
	@$(LAUNCH) up

down: ## stop what a killed `make up` left behind (the data stay)
	@if [ -x $(PY) ]; then $(LAUNCH) down; else echo "Nothing was ever started here."; fi

test: dev-venv ## run the tests on a database of their own: make test ARGS="-k sweep"
	@$(LAUNCH) test -- $(ARGS)

test-browser: dev-venv ## run the tests that need a Chromium
	@$(LAUNCH) test -- -m browser tests/browser $(ARGS)

lint: style types floors ## format, style, types, floors, missing migrations, deployment check

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

bench: dev-venv ## measure a fresh instance beside its peers: make bench BENCH=program ARGS="--rounds 5"
	@$(LAUNCH) bench -- $(ARGS)

shell: run-venv ## a Python shell with the models at hand
	@$(PY) manage.py shell

lock: dev-venv ## resolve the dependencies again: make lock ARGS=--upgrade
	@$(COMPILE) pyproject.toml $(ARGS) -o requirements.lock
	@$(COMPILE) pyproject.toml $(ARGS) --group dev -c requirements.lock -o requirements-dev.lock

COMPILE = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

# The folder holds a copy of the lock that was installed last: what was interrupted, or is of another lock, is redone.
# The lock for development contains everything of the other one.
# What is imported is compiled when it is imported, which is little of it. The tools for development are many: uv, which
# is one of them, installs them in a tenth of the time, and pip does where uv cannot (it does not read pip's settings).
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
			echo "Convo needs Python 3.11 or newer, and '$(PYTHON)' is none. Name one: make PYTHON=python3.12 …" >&2; \
			exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "'$(PYTHON)' cannot make virtual environments. On Debian: apt-get install python3-venv" >&2; \
			exit 1; }; \
		echo "Making $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear $(VENV); \
	fi; \
	echo "Installing what $(1) lists; this is done once"; \
	$(3); \
	for lock in $(1) $(2); do cp $$lock $(VENV)/$$lock; done
endef
