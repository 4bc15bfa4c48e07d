# `make demo` and `make test` are all that a newcomer needs; both set up what is missing first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
dk := .venv/bin/dermakiosk

N ?= 10000

# Else each of the thousands of processes that tests start would compile all modules anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup setup-kiosk setup-clinic setup-machines setup-test demo test every-test style check short-tests pythons lint faults soak picamera bench score train locks wheel sbom audit clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: ## Debian packages, .venv, face networks
	@provisioning/setup.sh demo

setup-kiosk: ## the same for a kiosk alone, on its board
	@provisioning/setup.sh kiosk

setup-clinic: ## the same for a clinic's server alone
	@provisioning/setup.sh clinic

setup-machines: ## the same for several clinic servers that share the work and one PostgreSQL
	@provisioning/setup.sh machines

setup-test:
	@provisioning/setup.sh test

demo: setup ## the whole system on simulated hardware, until Ctrl-C
	@exec $(dk) demo --state build/demo

test: setup-test ## every test that CI runs
	@mkdir -p build
	@$(MAKE) --no-print-directory --jobs 2 style every-test

every-test:
	@.venv/bin/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

style:
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports --no-cache

check: setup-test ## what takes a minute: style, types, the import rule, and tests without system, browser, broker, database
	@$(MAKE) --no-print-directory --jobs 2 style short-tests

short-tests:
	@.venv/bin/pytest --numprocesses 2 --dist loadfile -m "not long"

pythons: setup-test ## a part of the tests and a whole scan on each other Python that is here
	@.venv/bin/python -m tests.release.pythons

lint: setup-test ## style, types and the import rule only
	@$(MAKE) --no-print-directory style

faults: setup-test ## N=… faults against the light rules
	@.venv/bin/python -m tests.faults --count $(N)

soak: setup-test ## the long runs: a million faults, real daemons killed and harassed, 2,000 jobs of three machines; a table
	@.venv/bin/python -m tests.soak

picamera: setup ## the camera driver on the real Picamera2, in a Debian chroot; needs root and debootstrap
	@.venv/bin/python -m tests.picamera

bench: ## PARTS='scan firmware networks clinic', each figure beside its reference
	@provisioning/setup.sh bench
	@.venv/bin/python -m tests.bench $(PARTS)

score: setup-test ## DATA=… scores of our own networks on validation pictures; ARGS=--robustness
	@.venv/bin/python -m models.training.score --data $(DATA) $(ARGS)

train: build/training/ready ## TASK=… DATA=… train one of our own networks; ARGS='--set KEY=VALUE …'
	@build/training/bin/python -m models.training $(TASK) --data $(DATA) --out build/runs/$(TASK) $(ARGS)

build/training/ready: models/training/requirements.txt
	@python3 -m venv build/training && build/training/bin/pip install --quiet --requirement $<
	@touch $@

locks: setup-test ## pin anew what setup.cfg asks for; ARGS=--upgrade takes newer versions
	@provisioning/locks.sh $(ARGS)

wheel: setup-test ## the wheel, into build/wheel
	@rm -rf build/lib build/bdist.* build/wheel  # what setuptools left would be in it
	@PYTHONWARNINGS=ignore .venv/bin/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir build/wheel .

sbom: setup-test ## what a kiosk and a clinic's servers are made of, in CycloneDX, into build/sbom
	@.venv/bin/python -m tests.release.sbom

audit: setup-test ## whether a package of the locks has a known vulnerability
	@.venv/bin/python -m tests.release.audit

clean: ## remove what was built (not the downloads)
	rm -rf build *.egg-info
