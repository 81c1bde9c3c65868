# `make demo` and `make test` do all their own set-up, in .venv. Needs Python >= 3.11 and make.
# pip compiles on one processor, and the tests of each package too: compileall takes a third of it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
WHOLE  := tests/end_to_end tests/simulations
TEST   := pytest --dist loadfile --no-loadscope-reorder
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test check static doctest examples wheel proto bench soak clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fedsec needs Python >= 3.11; say which with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; a few minutes)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(PIP) install --no-compile -c constraints.txt hatchling editables
	@$(PIP) install --no-compile -c constraints.txt --no-build-isolation -e '.[dev]'
	@$(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >/dev/null || true  # some are for newer Pythons
	@touch $@

demo: $(READY)  ## the three defences in one round: a real fleet, some of it poisoned, and what each buys
	@$(BIN)/fedsec demo

# Programs of a federation wait for each other, so that three tests at a time keep two cores busy.
test: $(READY)  ## every test: first the parts, then whole federations
	@$(BIN)/python -m slipcover --json --out .coverage.json -m $(TEST) -n 2 $(addprefix --ignore=,$(WHOLE))
	@$(BIN)/python .ci/covered .coverage.json
	@$(BIN)/python -m $(TEST) -n 3 $(WHOLE)

check: static doctest test examples wheel  ## all that CI runs

static: $(READY)  ## lint, format, types, layers, security lint, generated code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml fedsec server clients simulations
	@PROTO_OUT=$$(mktemp -d) && BIN=$(BIN) sh proto/generate.sh "$$PROTO_OUT" && \
	  diff -r --exclude=__pycache__ --exclude=__init__.py "$$PROTO_OUT" fedsec/wire/generated && rm -r "$$PROTO_OUT"

doctest: $(READY)  ## the examples in docstrings
	@$(BIN)/python -m pytest --quiet --doctest-modules --ignore=fedsec/wire/generated fedsec

examples: $(READY)  ## what lies in examples/
	@BIN="$(CURDIR)/$(BIN)" sh examples/run.sh

wheel: $(READY)  ## the built wheel, installed in an empty environment
	@BIN=$(BIN) sh .ci/wheel

proto: $(READY)  ## generate fedsec/wire/generated from proto/
	@BIN=$(BIN) sh proto/generate.sh fedsec/wire/generated

bench: $(READY)  ## every benchmark in its quick form, beside its peers; fills the README's table
	@$(BIN)/python benchmarks/collect.py

soak: $(READY)  ## thirty nodes that come, go and crash, for five minutes
	@$(BIN)/python -m tests.end_to_end.soaking --seconds 300

clean:  ## remove what was installed and built
	@rm -rf $(VENV) dist build
