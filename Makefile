# Two commands matter: `make demo` and `make test`. Everything is installed into .venv on first use.
# More for Snakemake goes into ARGS: make demo ARGS="--config seed=7".
PYTHON ?= python3.11
CORES ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
SNAKEMAKE := $(BIN)/snakemake --workflow-profile workflow/profiles/default --cores $(CORES) --quiet host rules
# Large tensors come and go at every step: kept by the allocator, their memory is not mapped anew each time.
export MALLOC_MMAP_THRESHOLD_ := 4294967296
export MALLOC_TRIM_THRESHOLD_ := 4294967296
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo ci-experiment figures test test-all bench docs lint fuzz audit licences ui clean

FUZZ_SECONDS ?= 60

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: setup  ## the whole `demo` experiment, from raw preferences to judged soups
	$(SNAKEMAKE) $(ARGS)
	@cat results/demo/summary.txt 2>/dev/null || true

ci-experiment: setup  ## the same DAG with a tiny model, in minutes
	$(SNAKEMAKE) --configfile config/experiments/ci.yaml $(ARGS)
	@cat results/ci/summary.txt 2>/dev/null || true

RESULTS ?= results/demo
TABLES = $(RESULTS)/tables

figures: setup  ## the figures of RESULTS drawn again from its stored tables, those of users where it has some; no model is loaded
	@if [ -e "$(TABLES)/methods.csv" ] || [ ! -e "$(TABLES)/users_accuracy.csv" ]; then \
		$(BIN)/rlphf figures --notebook notebooks/results.ipynb --tables "$(TABLES)" --out "$(RESULTS)/figures"; fi
	@if [ -e "$(TABLES)/users_accuracy.csv" ] && [ $$(wc -l < "$(TABLES)/users_accuracy.csv") -gt 1 ]; then \
		$(BIN)/rlphf figures --notebook notebooks/users.ipynb --tables "$(TABLES)" --out "$(RESULTS)/figures"; fi

test: setup  ## the test suite
	$(BIN)/python -m pytest -m "not slow"

test-all: setup  ## the test suite with the long tests
	$(BIN)/python -m pytest

bench: setup  ## speed and memory against others, hours on an idle machine; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks $(ARGS)

docs: setup  ## what of the documentation is written from the code: config/README.md, and the DAG in docs/architecture.md
	$(BIN)/rlphf config write --config config/config.yaml --out config/config.yaml
	$(BIN)/python docs/dag.py

lint: setup  ## style, types and workflow checks
	$(BIN)/ruff check src tests benchmarks docs && $(BIN)/ruff format --check src tests benchmarks docs && $(BIN)/mypy && $(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/python -m pytest -q -k lint tests/workflow/test_dag.py

fuzz: setup  ## the readers of records on random bytes, for FUZZ_SECONDS
	$(PYTHON) -m venv --system-site-packages $(VENV)/fuzz
	$(VENV)/fuzz/bin/python -m pip install --quiet --disable-pip-version-check --no-deps atheris==2.3.0
	PYTHONPATH=src:$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") \
		$(VENV)/fuzz/bin/python benchmarks/fuzz_records.py -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -rss_limit_mb=4096

audit: setup licences  ## known vulnerabilities of the pinned packages, then their licences; needs a network
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip

licences: setup  ## the licence of every installed package
	@$(BIN)/python benchmarks/licences.py

ui: setup  ## the MLflow UI on this machine alone, http://127.0.0.1:5000
	@for results in results/*/; do $(BIN)/rlphf track sync --results $${results%/} || true; done
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port 5000 \
		--backend-store-uri sqlite:///mlflow.db --workers 1

clean:  ## remove results and tracking data, keep the environment
	rm -rf results mlflow.db .mlflow.db.lock mlartifacts .snakemake
