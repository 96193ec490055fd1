# Every target works from a fresh clone: the environment is made on first use.
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

test: env
	python -m pytest -n 2

test-slow: env
	python -m pytest -n 2 -m slow

lint: env
	ruff check .
	ruff format --check .
	mypy

# dvc.lock must fit the code and params.yaml: nothing may be left to run.
lock-check: env
	@fits=$$(dvc repro --dry --allow-missing 2>&1) && ! grep '^Running stage' <<< "$$fits" \
	  || { echo "$$fits"; echo 'dvc.lock does not fit: run dvc repro and commit'; exit 1; }

# What a reviewer of this change reads, in review.md; PICTURES is an address before their paths.
BASE ?= main
PICTURES ?= .
review: env
	python -m meal review '$(BASE)' --pictures '$(PICTURES)'

# Ratios, both sides interleaved in one process; writes reports/benchmarks. About half an hour.
bench: env
	python -m tests.benchmarks

# Known vulnerabilities of the pinned packages, from PyPI's advisories: needs a network.
audit:
	test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && \
	  .venv-audit/bin/python -m pip install --quiet pip-audit==2.10.1; }
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

# Stages killed at N moments and run again; prints killed, resumed, differing.
N ?= 100
soak: env
	python -m tests.stages.kills $(N)
