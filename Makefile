.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# These start many processes, and would hold up what the others measure in milliseconds: they run after them, and more of
# them at once, since they wait for processes and for outages to pass, and measure in seconds. The rooms with the longest
# tests come first: no worker is left alone with one at the end.
CROWDED := tests/endurance tests/examples tests/isolation tests/drill tests/fleet tests/store
# These wait for browsers, servers and namespaces, and in processes of their own: what they leave is in `health()`.
SERVED := tests/telemetry tests/signin tests/callouts tests/forecast tests/integrations

# With OLDEST set, what pyproject.toml names is installed in the oldest version that it allows; with NEWEST set, all that
# is there already is brought to the newest.
CONSTRAINED = $(if $(OLDEST),--constraint $(VENV)/oldest.txt) $(if $(NEWEST),--upgrade --upgrade-strategy eager)

# Programs that tests start by the hundred would each compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

# One stamp per purpose: what a target doesn't need, it doesn't install.
$(VENV)/.base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" $(if $(OLDEST),packaging)
	$(if $(OLDEST),$(BIN)/python tests/oldest.py >$(VENV)/oldest.txt)
	$(BIN)/python -m pip install --quiet $(CONSTRAINED) --editable ".[emulator]"
	@touch $@

$(VENV)/.%: $(VENV)/.base
	$(BIN)/python -m pip install --quiet $(CONSTRAINED) --group $*
	@touch $@

drill: $(VENV)/.base ## Break an identity provider in every way; see who kept the application running
	$(BIN)/resilient-auth drill $(DRILL)

$(VENV)/.browser: tests/browser.sh $(VENV)/.base
	sh tests/browser.sh
	@touch $@

$(VENV)/.prometheus: tests/prometheus.sh $(VENV)/.base
	sh tests/prometheus.sh $(VENV)/prometheus
	@touch $@

$(VENV)/.network: tests/network.sh $(VENV)/.base
	sh tests/network.sh
	@touch $@

# Old releases use what their own dependencies have deprecated since: those warnings are shown, and are no errors.
PYTEST = $(BIN)/python -m pytest --dist loadgroup $(if $(OLDEST),-W default::DeprecationWarning)

test: $(VENV)/.test $(VENV)/.browser $(VENV)/.prometheus $(VENV)/.network ## Run the tests
ifdef TEST
	$(PYTEST) -n 2 $(TEST)
else # each part, whatever became of the one before
	failed=; \
	$(PYTEST) -n 2 $(addprefix --ignore=,$(CROWDED) $(SERVED)) || failed=yes; \
	$(PYTEST) -n 4 $(SERVED) || failed=yes; \
	$(PYTEST) -n 4 $(CROWDED) || failed=yes; \
	[ -z "$$failed" ]
endif

matrix: ## Run the tests with each Python that is here and the newest dependencies, and with the oldest; MATRIX_TEST= narrows them
	@passed= failed=; for version in 3.11 3.12 3.13; do \
		if python$$version -c "" 2>/dev/null; then \
			rm -f .venv-$$version/.base .venv-$$version/.test; \
			$(MAKE) test VENV=.venv-$$version PYTHON=python$$version NEWEST=1 TEST="$(MATRIX_TEST)" \
				&& passed="$$passed $$version" || failed="$$failed $$version"; \
		fi; \
	done; \
	$(MAKE) oldest OLDEST_TEST="$(MATRIX_TEST)" && passed="$$passed oldest" || failed="$$failed oldest"; \
	echo "passed:$${passed:- none}; failed:$${failed:- none}"; [ -n "$$passed" ] && [ -z "$$failed" ]

oldest: ## Run the tests with the oldest versions that pyproject.toml allows; OLDEST_TEST= narrows them
	$(MAKE) test VENV=.venv-oldest PYTHON=python3.11 OLDEST=1 TEST="$(OLDEST_TEST)"

resolve: $(VENV)/.base ## See that the oldest versions that pyproject.toml allows can be installed beside each other
	$(BIN)/python -m pip install --quiet "packaging>=24"
	$(BIN)/python tests/oldest.py >$(VENV)/oldest.txt
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --constraint $(VENV)/oldest.txt --group test

coverage: $(VENV)/.test $(VENV)/.browser $(VENV)/.prometheus $(VENV)/.network ## Run the tests, slower, and tell which branches they don't reach
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term $(TEST)

conformance: $(VENV)/.test ## Run MSAL's own released tests against the drop-in
	$(BIN)/python -m tests.conformance

chaos: $(VENV)/.test ## Kill, starve, tear and fork a fleet for long
	$(BIN)/python tests/fleet/chaos.py $(CHAOS)

isolation: $(VENV)/.test ## Search for tokens that cross borders, for long
	$(BIN)/python -m tests.isolation.crossing $(ISOLATION)

blame: $(VENV)/.test $(VENV)/.network ## Break providers and networks, and count how often the right one is blamed
	$(BIN)/python -m tests.telemetry.blame $(BLAME)

search: $(VENV)/.test ## Go through all interleavings of what runs at once, for long
	$(BIN)/python -m tests.search $(SEARCH)

# As whoever copies one checks it; Django and Valkey's server have no types.
SAMPLES := --strict --no-error-summary --cache-dir=../../.mypy_cache \
	--disable-error-code=import-untyped --disable-error-code=untyped-decorator

lint: $(VENV)/.lint $(VENV)/.test ## Style, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing
	for sample in examples/[a-z]*/; do (cd $$sample && MYPYPATH=../:../../ $(abspath $(BIN))/mypy $(SAMPLES) *.py) || exit 1; done
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

docs: $(VENV)/.docs ## Build the documentation; warnings are errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/.bench ## Measure against the peers, in one run
	$(BIN)/python -m benchmarks $(BENCH)

clean: ## Remove what was built
	rm -rf .venv .venv-* docs/_build build dist .coverage*

.PHONY: help drill test matrix oldest resolve coverage conformance chaos isolation blame search lint docs bench clean
