# Every target sets up what it needs in .venv; only Python 3.11+, make and a package index are assumed.
PYTHON ?= python3
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
  --custom-compile-command 'make lock'
SCRIPTS := .ci/run .ci/installed images/build manifests/ci/deploy-by-event.sh
.DEFAULT_GOAL := help
.PHONY: help demo installed images quick test new-step exhaustive check lint render fix lock bench bench-transfer bench-planning clean

help: ## what can be done here
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

.venv/ready: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Slipway needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

demo: .venv/ready ## the pipeline on this machine, against embedded services
	$(BIN)/python -m workflows rehearse manifests/services/demo.yaml

installed: ## install as a tool outside of the checkout, and use it there
	.ci/installed

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

quick: .venv/ready ## the tests of plans, loop and rendering
	$(PYTEST) -m 'not exhaustive' tests/plan tests/reconcile tests/argo --ignore tests/argo/test_ci_examples.py \
	  --ignore tests/argo/test_docs_links.py --ignore tests/argo/test_admission.py

new-step: .venv/ready ## add the step of CONTRIBUTING.md to a copy of the tree, and run `make render` and `make quick` there
	$(BIN)/python -m tests.support.new_step

test: .venv/ready ## the tests
	$(PYTEST) -m 'not exhaustive'

exhaustive: .venv/ready ## the tests that walk every case, and take longer
	$(PYTEST) -m exhaustive

check: .venv/ready lint test exhaustive ## what CI runs: lint, types, import rules, drift of generated files, all tests

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/vulture
	$(BIN)/lint-imports
	$(BIN)/python -m workflows.argo.bundle --check
	$(BIN)/hadolint images/Containerfile
	$(BIN)/shellcheck $(SCRIPTS)
	$(BIN)/python -m tests.support.prose

render: .venv/ready ## write the generated files again
	$(BIN)/python -m workflows.argo.bundle

fix: .venv/ready ## format, and repair what the linter can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: .venv/ready ## resolve requirements.lock again, and from it what the image gets
	$(COMPILE) --all-extras --group test --group lint --group lock --group image --upgrade -o requirements.lock pyproject.toml
	$(COMPILE) --constraint requirements.lock -o images/requirements.lock images/requirements.in
	$(COMPILE) --constraint requirements.lock -o images/build-requirements.lock images/build-requirements.in

bench: bench-transfer bench-planning ## measure; writes build/bench

bench-transfer: .venv/ready ## what a transfer costs, beside what people use (BENCH="--gb 0.3 --runs 1" for a short look)
	$(BIN)/python -m tests.bench.transfer $(BENCH)

bench-planning: .venv/ready ## how long a plan over as many files takes as the hub lists
	$(BIN)/python -m tests.bench.planning

images: ## build the image of the steps; needs podman, docker or buildah (images/README.md says how to choose)
	images/build $(if $(TWICE),--twice)

clean: ## forget the embedded services and everything they hold
	rm -rf .slipway build
