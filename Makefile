# Everything a contributor types. `make demo` and `make test` need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARTS := edge converters trainer deploy
# One process more than CI has cores: some tests wait for a camera, a broker or a time-out.
ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test check unit schemas lock broker clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16

demo: $(BIN)/.ready ## install into .venv, then the whole way: data, training, bundle, device, MQTT
	$(BIN)/tinysight demo

test: check unit ## all that CI checks

check: $(BIN)/.ready ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PARTS) tests benchmarks
	$(BIN)/lint-imports --no-logo

# What is imported is compiled once, and not by each of the thousand processes that the tests start.
unit: export PYTHONDONTWRITEBYTECODE =
unit: $(BIN)/.ready ## the tests (one: make unit ARGS='tests/edge/test_track.py -k ends')
	$(BIN)/python -m pytest $(ARGS)

schemas: $(BIN)/.ready ## write the schemas, the TypeScript and docs/mqtt.md again after a change of the contract
	$(BIN)/python -m tinysight_contract.schemas

lock: $(BIN)/.ready ## pin all dependencies again, for every Python and platform
	$(BIN)/uv pip compile --universal --no-emit-index-url --no-header --python-version 3.11 \
		--extra all --group dev pyproject.toml -o requirements.lock

broker: $(BIN)/.ready ## a broker for development on ports 1883 to 1885
	$(BIN)/tinysight broker

clean: ## remove what was built and installed
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"TinySight needs Python 3.11 to 3.13 (TensorFlow has no wheel for others); this is {v[0]}.{v[1]}. Name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
