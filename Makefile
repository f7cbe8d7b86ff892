# Everything a developer does. Needs Python >= 3.11 and make; the rest is brought into .venv.
#
#   ARGS     more arguments for `holdfast up` and `holdfast down`, or for pytest: make test ARGS="-k cancel"
#   PYTHON   the interpreter .venv is made with (default: the first of python3.11 … python3.14, python3)
#   WORKERS  test processes at once (many tests wait, so four keep two cores busy; three where some measure)
#   ONLY     the benchmarks to run: make bench ONLY=redis,lock
#   JSON     a file for the results of the benchmarks; SVG: one for their picture; DOCS: the document whose
#            table they replace; FROM: measure nothing, take these files of results
#   SEED     seed of the random tests; the one in use is printed with the command

ARGS ?=
SEED ?= $(shell date +%s)
SEED := $(SEED)
UV_VERSION := 0.13.8

# Bytecode is kept whatever the shell says: without, each process of a test compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE

PYTEST = .venv/bin/python -m pytest --hypothesis-seed=$(SEED)
# What speaks to Redis: `make test-full` runs it against Debian's redis-server, too.
REDIS_TESTS := tests/contract $(addprefix tests/integration/,hotpath redis consumer gateway isolation)
# As it stands in the head of each lock, where Renovate reads it (.github/renovate.json): that is why options have an `=`.
COMPILE = .venv/lock-tools/bin/uv pip compile --quiet
COMPILED = --universal --python-version=3.11 --generate-hashes $(ARGS)

.DEFAULT_GOAL := all
.PHONY: all environment help up down test test-full check bench image image-test test-containers sbom alerts alerts-test lock clean asyncapi

all: environment help

environment:
	@PYTHON='$(PYTHON)' sh requirements/environment.sh

help:
	@echo 'make up         start the whole stack and wait until it is ready (Ctrl-C stops it; ARGS=--detach)'
	@echo 'make down       stop it; the data stays in .holdfast/'
	@echo 'make test       all tests but the long ones (at most 10 minutes; ARGS="-k name" for some of them)'
	@echo 'make test-full  all tests, those of Redis also with redis-server 7 (under an hour)'
	@echo 'make test-containers  integration tests against containers, made here where no registry is reached'
	@echo 'make check      format, lint, types, import contracts, unit tests (a minute or two)'
	@echo 'make bench      this project beside its references, as ratios (ONLY=name JSON=file SVG=file)'
	@echo 'make image      the container image, for all three modes (IMAGE=name PYTHON_IMAGE=base)'
	@echo 'make image-test build it, run it in its three modes against the real servers, and look inside'
	@echo 'make alerts     write the alert rules into the object of the Prometheus operator, too'
	@echo 'make alerts-test  try every alert with promtool, and parse what dashboards and runbooks ask'
	@echo 'make sbom       list what is in the image, with versions and licences: build/holdfast.cdx.json'
	@echo 'make asyncapi   have the official AsyncAPI parser read the document of events (needs npm)'
	@echo 'make lock       resolve the dependencies of pyproject.toml again (ARGS=--upgrade for newer ones)'
	@echo 'make clean      remove the environment and every cache; the data stays'

up: environment
	.venv/bin/holdfast up $(ARGS)

down: environment
	.venv/bin/holdfast down $(ARGS)

test: WORKERS ?= 4
test: environment
	$(PYTEST) -n $(WORKERS) --dist loadfile $(ARGS)

test-full test-containers: WORKERS ?= 3
test-full: environment
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "not image" $(ARGS)
	sh tests/second_redis.sh $(PYTEST) -n $(WORKERS) --dist loadfile -m "not image" $(REDIS_TESTS) $(ARGS) || \
		test $$? -eq 5 # none of them are among those that ARGS names

test-containers: environment
	sh image/test_servers.sh $(PYTEST) -n $(WORKERS) --dist loadfile \
		$(or $(ARGS),tests/contract tests/integration tests/workflows)

check: environment
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	$(PYTEST) tests/unit tests/architecture --ignore-glob='*/test_manifests*' --ignore-glob='*/test_supply*' $(ARGS) # those: `make test`

image: environment
	sh image/build.sh

image-test: image
	$(PYTEST) -m image tests/image $(ARGS)

alerts: environment
	.venv/bin/python -m tests.architecture.watched alerts

alerts-test: environment
	sh tests/alerts/run.sh

sbom: image
	sh image/sbom.sh

asyncapi: environment
	sh tests/contract/asyncapi/check.sh

bench: environment
	@sh requirements/peers.sh
	@.venv/bin/python -m bench --only '$(ONLY)' $(if $(JSON),--json '$(JSON)') $(if $(SVG),--svg '$(SVG)') \
		$(if $(DOCS),--docs '$(DOCS)') $(foreach file,$(FROM),--from '$(file)')

lock: environment
	@test -x .venv/lock-tools/bin/uv || { .venv/bin/python -m venv .venv/lock-tools && \
		.venv/lock-tools/bin/python -m pip install -qq --disable-pip-version-check uv==$(UV_VERSION); }
	$(COMPILE) pyproject.toml $(COMPILED) --output-file=requirements/image.lock
	$(COMPILE) pyproject.toml $(COMPILED) --extra=sandbox --constraint=requirements/image.lock \
		--output-file=requirements/sandbox.lock
	$(COMPILE) pyproject.toml $(COMPILED) --extra=dev --constraint=requirements/image.lock \
		--output-file=requirements/dev.lock
	$(COMPILE) pyproject.toml $(COMPILED) --extra=bench --constraint=requirements/dev.lock \
		--output-file=requirements/bench.lock
	$(COMPILE) requirements/policy.in $(COMPILED) --output-file=requirements/policy.lock
	$(COMPILE) requirements/sbom.in $(COMPILED) --output-file=requirements/sbom.lock

clean:
	@if [ -f .venv/.installed ]; then .venv/bin/holdfast down || true; fi
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
