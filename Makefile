# What a contributor does, one word each. `make` alone lists the words.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# which lab, and which release of Slurm in it; the tests read the same names
export TIDEGATE_LAB ?= tidegate
export TIDEGATE_SLURM ?= 24.11
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: help venv lock lint crds test test-fast fuzz test-lab scenarios lab-up lab-down demo demo-loop demo-burst bench

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile

venv: $(READY) ## make .venv with the locked packages and Tidegate itself, editable

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Tidegate needs Python 3.11 or newer: name one, as in make venv PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install python3-venv (apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

lock: $(READY) ## write the lock files anew from pyproject.toml, with the newest versions it allows
	$(COMPILE) --upgrade --all-extras --output-file requirements.lock
	$(COMPILE) --upgrade --extra operator --constraint requirements.lock --output-file requirements-operator.lock

lint: $(READY) ## ruff, mypy, and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy operator/tidegate e2e tests
	$(BIN)/lint-imports --no-logo

crds: $(READY) ## write crds/ and the chart's copy of it from the models
	$(BIN)/python -m tidegate.api crds
	$(BIN)/python -m tidegate.api helm/tidegate/files/crds

test: lint test-fast test-lab ## everything: lint, drift checks, fast tests, then the tests on a real Kubernetes and Slurm

test-fast: $(READY) ## the tests that need nothing but Python
	$(BIN)/pytest -m "not lab"

fuzz: $(READY) ## look for new cases that break a promise, for as long as it takes
	$(BIN)/pytest -m "not lab" --hypothesis-profile=fuzz tests/sharing tests/controllers

test-lab: lab-up ## the tests on the lab, then those of the lab itself, which have the machine to themselves
	$(BIN)/pytest -m "lab and not scenarios" --ignore tests/lab
	$(BIN)/python -m e2e.lab down --name $(TIDEGATE_LAB)
	$(BIN)/pytest -m lab tests/lab

scenarios: lab-up ## the tests on the lab that take minutes each
	$(BIN)/pytest -m scenarios

lab-up: $(READY) ## a kind cluster and a real Slurm in containers on this machine
	$(BIN)/python -m e2e.lab up --name $(TIDEGATE_LAB) --slurm $(TIDEGATE_SLURM)

lab-down: $(READY) ## take the lab away, and what it changed on this machine
	$(BIN)/python -m e2e.lab down --name $(TIDEGATE_LAB)

demo: $(READY) ## show a node lent to Slurm and taken back by a more important pod
	$(BIN)/python -m e2e.demo

demo-burst: $(READY) ## show a model server grow onto Slurm's nodes under load and shrink again, and no request fail
	$(BIN)/python -m e2e.scenarios.burst

demo-loop: $(READY) ## show the preemption loop of a plain Deployment of slurmd, and the same load with Tidegate
	$(BIN)/python -m e2e.scenarios.preemption_loop

bench: $(READY) ## measure hand-over times on the lab
	$(BIN)/python -m benchmarks
