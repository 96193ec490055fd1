# Every target works in a fresh clone: the environment is created on first use.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON ?= python3

.PHONY: env repro test test-slow lint lock-check review bench soak audit

env: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

repro: env
	dvc repro
	python -m meal results

# Test processes, each of which makes a small project of its own.
JOBS ?= 2
test: env
	python -m pytest -n $(JOBS)

test-slow: env
	python -m pytest -n $(JOBS) -m slow

lint: env
	ruff check .
	ruff format --check .
	mypy

# dvc.lock must match the code and params.yaml: no stage may be left to run.
lock-check: env
	@fits=$$(dvc repro --dry --allow-missing 2>&1) && ! grep '^Running stage' <<< "$$fits" \
	  || { echo "$$fits"; echo 'dvc.lock is stale: run dvc repro and commit'; exit 1; }

# Write review.md, for the reviewer of a change; PICTURES is a URL to prepend to picture paths.
BASE ?= main
PICTURES ?= .
review: env
	python -m meal review '$(BASE)' --pictures '$(PICTURES)'

# Measure ratios, with both sides interleaved in one process, and write reports/benchmarks: about
# half an hour.
bench: env
	python -m tests.benchmarks

# Look up known vulnerabilities of the pinned packages in PyPI's advisories; needs a network.
audit:
	test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && \
	  .venv-audit/bin/python -m pip install --quiet pip-audit==2.10.1; }
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

# Kill, damage and crowd the pipeline, and write reports/results/reliability.md: SCALE times 300 kills,
# 500 flipped bits and ten minutes.
SCALE ?= 1
soak: env
	python -m tests.soak $(SCALE)
