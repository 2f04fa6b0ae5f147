# Everything sets itself up: python3 >= 3.11, make and a C compiler are all it needs.

# The first that is new enough; evaluated only where the environment is made.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
  { echo $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Built from source where Go is: what checks the chart and the rules.
HELM := helm.sh/helm/v4/cmd/helm@v4.3.1
PROMTOOL := github.com/prometheus/prometheus/cmd/promtool@v0.316.0
SOURCES := server clients/python bench tests tools

.DEFAULT_GOAL := help
.PHONY: help demo serve test clients test-loaded mutants races fuzz attack record bench check format generate docs lock release-contract clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(VENV)/.run  ## Hold a real conversation on one warm process (ARGS="--json")
	@$(BIN)/samovard demo $(ARGS)

serve: $(VENV)/.run  ## Run the service: live with a credential, else on the stand-in
	@$(BIN)/samovard serve --stand-in-if-no-credential $(ARGS)

test: $(VENV)/.dev  ## Run every test, three at a time (ARGS="-k pool": some, one by one)
	@$(BIN)/python -E -m pytest $(or $(ARGS),-n 3 --dist loadfile)

clients: $(VENV)/.dev  ## Run one suite with the client of each language (ARGS="--only go", "--write")
	@PYTHONPATH=tests $(BIN)/python -m conformance $(ARGS)

test-loaded: $(VENV)/.dev  ## Run the tests beside two busy loops per core (ARGS as for test)
	@$(BIN)/python -E tools/loaded.py $(BIN)/python -E -m pytest $(or $(ARGS),-n 3 --dist loadfile)

races: $(VENV)/.dev  ## Race interrupts against next turns (ARGS="--fake 1000 --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m races $(ARGS)

fuzz: $(VENV)/.dev  ## Try inputs that nobody would think of (ARGS="--seed 7 --count 100000")
	@PYTHONPATH=tests $(BIN)/python -m fuzz $(ARGS)

chaos: $(VENV)/.dev  ## Kill, stop and break agents under load; what is left? (ARGS="--turns 1000 --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

attack: $(VENV)/.dev  ## Attack running services; is each control needed? (ARGS="--without", "--only tokens")
	@PYTHONPATH=tests $(BIN)/python -m security $(ARGS)

mutants: $(VENV)/.dev  ## Change core and agent: which changes fail no test? (ARGS="--seed 7 --count 50")
	@$(BIN)/python tools/mutants.py $(ARGS)

record: $(VENV)/.dev  ## Record the installed CLI for the tests (ARGS="--check", "plain-turn")
	@PYTHONPATH=tests $(BIN)/python -m recorder $(ARGS)

bench: $(VENV)/.run  ## Measure it beside the alternatives (ARGS="--only added", "--help")
	@$(BIN)/python -m bench $(ARGS)

check: $(VENV)/.dev  ## Check formats, lint, types, the contract and what is generated
	@$(BIN)/python tools/check.py $(ARGS)

format: $(VENV)/.dev  ## Format code and protos
	@$(BIN)/ruff format -q $(SOURCES)
	@$(BIN)/ruff check -q --fix-only $(SOURCES)
	@$(BIN)/buf format -w
	@if command -v gofmt > /dev/null; then gofmt -w clients/go; fi
	@if test -d clients/typescript/node_modules; then npm --prefix clients/typescript run -s format; fi

generate: $(VENV)/.dev  ## Write the stubs, the reference pages, the chart's schema and the rooms
	@$(BIN)/python tools/generate.py clients/python
	@if command -v go > /dev/null; then $(BIN)/python tools/generate.py --go clients/go; \
	  else echo 'Go is not installed: the stubs in clients/go stay as they are.' >&2; fi
	@if command -v npm > /dev/null; then \
	  cd clients/typescript && { test -d node_modules || npm ci --no-audit --no-fund; } && \
	  cd ../.. && $(BIN)/python tools/generate.py --typescript clients/typescript/src/gen; \
	  else echo 'npm is not installed: the stubs in clients/typescript stay as they are.' >&2; fi
	@$(BIN)/python tools/reference.py
	@$(BIN)/python tools/chart.py
	@$(BIN)/python tools/rooms.py

docs: $(VENV)/.docs  ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
	@echo site/index.html

deploy-tools: $(VENV)/.deploy  ## Set up what the tests of deploy/ need besides (helm, envoy, ...)

lock: $(VENV)/.dev  ## Renew the locked versions and hashes
	@$(BIN)/python tools/lock.py

# Part of each release: from then on `make check` holds the protos against what went out.
release-contract: $(VENV)/.dev  ## Take the protos as the released contract
	@$(BIN)/buf build -o protos/released.binpb

clean:  ## Remove what was set up
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.python:
	@python='$(PYTHON)'; \
	"$${python:-none}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'Python 3.11 or later is needed: set PYTHON=/path/to/python3' >&2; exit 1; }; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$$python cannot make environments: install python3-venv (Debian's name)" >&2; \
	    exit 1; }; \
	"$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python requirements/run.txt pyproject.toml clients/python/pyproject.toml
	@echo 'Setting up: the first time this fetches about 200 MB and takes a minute.' >&2
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
	  -e clients/python -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@echo 'Setting up what tests and checks need.' >&2
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.dev requirements/docs.txt
	@echo 'Setting up what the documentation needs.' >&2
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

$(VENV)/.deploy: $(VENV)/.docs requirements/deploy.txt requirements/oldest.txt
	@echo 'Setting up what the tests of deploy/ need; building helm and promtool takes minutes.' >&2
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/deploy.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-warn-conflicts --upgrade \
	  --require-hashes --target $(VENV)/oldest -r requirements/oldest.txt
	@if command -v go > /dev/null; then \
	  GOBIN='$(abspath $(BIN))' CGO_ENABLED=0 go install $(HELM) && \
	  GOBIN='$(abspath $(BIN))' CGO_ENABLED=0 go install $(PROMTOOL); \
	  else echo 'Go is not installed: no helm and no promtool.' >&2; fi
	@touch $@
