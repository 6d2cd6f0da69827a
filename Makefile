# One command runs it: make run. Everything it needs goes into .venv and into the data folder.
.DEFAULT_GOAL := help
.PHONY: help run test lint fleet bench faults clean

VENV := .venv/bin/python
DEVICES ?= 100
ARGS ?=

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: ## run the platform with its demo; Ctrl-C stops it
	@sh config/bootstrap.sh run
	@exec $(VENV) -m config.supervisor

test: ## run every test against servers of its own; ARGS="-k tunnel" chooses
	@sh config/bootstrap.sh dev
	@PYTHONDONTWRITEBYTECODE= exec $(VENV) -m pytest -n auto $(ARGS)

lint: ## ruff, mypy and the rule of who may import whom
	@sh config/bootstrap.sh dev
	$(VENV) -m ruff check .
	$(VENV) -m mypy
	$(VENV) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

fleet: ## DEVICES=100 simulated devices join a running platform
	@sh config/bootstrap.sh run
	@exec $(VENV) -m config.fleet $(DEVICES) $(ARGS)

bench: ## measure; ARGS="commands" chooses suites
	@sh config/bootstrap.sh bench
	@exec $(VENV) -m bench $(ARGS)

faults: ## kill, stop and empty parts under rollouts, and compare; ARGS="worker v1" chooses
	@sh config/bootstrap.sh dev
	@exec $(VENV) -m tests.faults $(ARGS)

clean: ## remove the environment and caches; the data folder stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.edgeflow/*' -prune -exec rm -rf {} +
