# Every target is one command in the environment that devtools/bootstrap.py makes at the first call.
PYTHON ?= python3
RUN := $(PYTHON) devtools/bootstrap.py
PACKAGES := $(subst -,_,$(notdir $(patsubst %/pyproject.toml,%,$(wildcard libs/*/pyproject.toml services/*/pyproject.toml \
	apps/*/pyproject.toml devtools/*/pyproject.toml))))

.DEFAULT_GOAL := help
.PHONY: help demo up down status secrets test check bench bench-ingest bench-limits clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## play a month of billing on real parts and compare every number with the truth (CHAOS=1 kills services meanwhile)
	@CHAOS=$(CHAOS) $(RUN) python -m quill_demo

up: ## run the whole system in the foreground; Ctrl-C stops it, data is kept
	@$(RUN) python -m quill_stack up

down: ## stop what `make up` runs
	@$(RUN) python -m quill_stack down

status: ## say what runs and whether it is ready
	@$(RUN) python -m quill_stack status

secrets: ## print new secrets as an env file for docker compose
	@$(RUN) python -m quill_stack secrets

test: ## all tests, on real Kafka, Postgres and Redis (ARGS="-k name" chooses)
	@$(RUN) python -m quill_stack fetch
	@$(RUN) python -m pytest $(ARGS)

check: ## formatting, lint, types and import rules
	@$(RUN) ruff format --check
	@$(RUN) ruff check
	@$(RUN) mypy $(foreach package,$(PACKAGES),-p quill_$(package))
	@$(RUN) mypy -p benchmarks
	@$(RUN) lint-imports

bench: ## measure; each benchmark prints its ratio to a ceiling measured in the same run
	@set -e; for script in benchmarks/*.py; do $(RUN) python -m benchmarks.$$(basename $$script .py); done

bench-ingest: ## measure usage ingest alone: speed, growth with history, latency; ARGS=--quick for a few minutes
	@set -e; for part in ingest ingest_growth ingest_latency; do $(RUN) python -m benchmarks.$$part $(ARGS); done

bench-limits: ## measure quota checks, decisions, the stream and a rebuild alone; ARGS=--quick
	@$(RUN) python -m benchmarks.quota_check $(ARGS)
	@$(RUN) python -m benchmarks.limits_delivery $(ARGS)

clean: down ## remove the stack's data and every cache; downloads and .venv stay
	@rm -rf .local/stack .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find libs services apps devtools tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
