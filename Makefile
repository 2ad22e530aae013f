# `make run` and `make test` work on a fresh machine. Everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MINUTES ?= 60
# The tests start many processes: each should find the bytecode of those before it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test collect slow test-all coverage fuzz lint style types check audit docs bench curves sbom ci clean train-small

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-11s %s\n", $$1, $$2}'

run: $(STAMP) ## run the embedded beamline, the agent and its dashboard; writes to a new folder in out, or to OUT=DIR
	$(BIN)/xas-agent run --dashboard $(if $(OUT),--out $(OUT))

# Three workers of one thread each on two cores: some tests wait for other processes.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(STAMP) ## run the tests but for the slow ones; PYTEST_ARGS="-k NAME" selects
	$(PYTEST) $(PYTEST_ARGS)

collect: $(STAMP) ## import all tests and run none
	$(BIN)/python -m pytest --collect-only -qq -m "slow or not slow"

slow: $(STAMP) ## run the slow tests, which train networks
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-all: $(STAMP) ## run all tests, in less time than the two parts
	$(PYTEST) -m "slow or not slow" $(PYTEST_ARGS)

coverage: $(STAMP) ## run all tests and print the lines and branches that none reaches; takes longer than the tests alone
	rm -f .coverage .coverage.*
	$(MAKE) test-all PYTEST_ARGS="--cov --cov-report=term-missing"

SMALL = $(if $(OUT),$(OUT),out/trained)
train-small: $(STAMP) ## train a model of Fe from data/feff and print its scores; writes to out/trained, or to OUT=DIR
	$(BIN)/xas-agent train fe-small --data data/feff --out $(SMALL)
	$(BIN)/xas-agent evaluate $(SMALL)/fe-small --data data/feff --beside extra-trees

fuzz: $(STAMP) ## run the property tests with fresh seeds for MINUTES=60
	PYTHON=$(BIN)/python .ci/fuzz $(MINUTES)

lint: style types ## check style, import floors and types

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) build/typing/xas_agent
	$(BIN)/pyright

check: lint test ## lint and test

audit: $(STAMP) ## look for known vulnerabilities of the pinned packages, if their database answers
	$(BIN)/python .ci/audit

docs: $(STAMP) build/typing/xas_agent ## build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

bench: $(STAMP) ## measure speed: every ratio with its spread and bar; BENCH_ARGS="--only zmq" selects
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

curves: $(STAMP) ## measure how speed grows with batch and agents, and cost with frames; draws build/scaling.svg
	$(BIN)/python benchmarks/scaling.py --figure build/scaling.svg

# What the wheel with all extras brings, and none of the tools of development. cyclonedx-bom has an environment of its own:
# it brings a package that costs every process which imports jsonschema seconds.
sbom: $(STAMP) ## list the packages of a release in dist, in CycloneDX's form
	rm -rf build/sbom build/cyclonedx
	$(PYTHON) -m venv --without-pip build/sbom
	$(BIN)/pip --python build/sbom install --quiet --constraint constraints.txt ".[all]"
	$(PYTHON) -m venv --without-pip build/cyclonedx
	$(BIN)/pip --python build/cyclonedx install --quiet --constraint constraints.txt cyclonedx-bom
	mkdir -p dist
	version=$$($(BIN)/xas-agent --version) && \
	sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml >build/sbom.toml && \
	build/cyclonedx/bin/cyclonedx-py environment --pyproject build/sbom.toml --output-reproducible \
		--output-file "dist/xas-agent-$$version.cdx.json" build/sbom

ci: ## run everything that must hold before a merge
	.ci/run

clean: ## remove what these targets made
	rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .pytest_cache .ruff_cache .import_linter_cache out

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), which takes some minutes and is silent"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

# The repository root is the package, which pyright can only follow under the package's name.
build/typing/xas_agent:
	mkdir -p $(@D)
	ln -sfn $(CURDIR) $@
