.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# These start many processes, and would hold up what the others measure in milliseconds: they run after them.
CROWDED := tests/fleet tests/store tests/isolation tests/examples tests/drill tests/endurance

# One stamp per purpose: what a target doesn't need, it doesn't install.
.venv/.base: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[drill]"
	@touch $@

.venv/.%: .venv/.base
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@

drill: .venv/.base ## Break an identity provider in every way; see who kept the application running
	$(BIN)/resilient-auth drill $(DRILL)

.venv/.browser: tests/browser.sh .venv/.base
	sh tests/browser.sh
	@touch $@

test: .venv/.test .venv/.browser ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(or $(TEST),$(addprefix --ignore=,$(CROWDED)))
ifndef TEST
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(CROWDED)
endif

coverage: .venv/.test .venv/.browser ## Run the tests, slower, and tell which branches they don't reach
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term $(TEST)

conformance: .venv/.test ## Run MSAL's own released tests against the drop-in
	$(BIN)/python -m tests.conformance

chaos: .venv/.test ## Kill, starve and tear a fleet for long
	$(BIN)/python -m tests.fleet.chaos $(CHAOS)

isolation: .venv/.test ## Search for tokens that cross borders, for long
	$(BIN)/python -m tests.isolation.crossing $(ISOLATION)

search: .venv/.test ## Go through all interleavings of what runs at once, for long
	$(BIN)/python -m tests.search $(SEARCH)

lint: .venv/.lint .venv/.test ## Style, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.docs ## Build the documentation; warnings are errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -b html docs docs/_build/html

bench: .venv/.bench ## Measure against the peers, in one run
	$(BIN)/python -m benchmarks $(BENCH)

clean: ## Remove what was built
	rm -rf .venv docs/_build build dist .coverage*

.PHONY: help drill test coverage conformance chaos isolation search lint docs bench clean
