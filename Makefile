# `make demo` and `make test` are all that a newcomer needs; both set up what is missing first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
dk := .venv/bin/dermakiosk

N ?= 10000

.PHONY: help setup setup-test demo test lint faults soak picamera bench score train clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## Debian packages, .venv, face networks
	@provisioning/setup.sh run

setup-test:
	@provisioning/setup.sh test

demo: setup ## the whole system on simulated hardware, until Ctrl-C
	@exec $(dk) demo --state build/demo

test: setup-test ## every test that CI runs
	@mkdir -p build
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports --no-cache
	@.venv/bin/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

lint: setup ## style, types and the import rule only
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports --no-cache

faults: setup-test ## N=… faults against the light rules
	@.venv/bin/python -m tests.faults --count $(N)

soak: setup-test ## the long runs: a million faults, real daemons killed and harassed; a table
	@.venv/bin/python -m tests.soak

picamera: setup ## the camera driver on the real Picamera2, in a Debian chroot; needs root and debootstrap
	@.venv/bin/python -m tests.picamera

bench: setup ## seconds and memory of a scan, each beside its reference
	@mkdir -p build
	@.venv/bin/python -m tests.bench

score: setup-test ## DATA=… scores of our own networks on validation pictures; ARGS=--robustness
	@.venv/bin/python -m models.training.score --data $(DATA) $(ARGS)

train: build/training/ready ## TASK=… DATA=… train one of our own networks; ARGS='--set KEY=VALUE …'
	@build/training/bin/python -m models.training $(TASK) --data $(DATA) --out build/runs/$(TASK) $(ARGS)

build/training/ready: models/training/requirements.txt
	@python3 -m venv build/training && build/training/bin/pip install --quiet --requirement $<
	@touch $@

clean: ## remove what was built (not the downloads)
	rm -rf build *.egg-info
