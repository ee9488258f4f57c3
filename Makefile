# Two commands matter: `make demo` and `make test`. Everything is installed into .venv on first use.
# More for Snakemake goes into ARGS: make demo ARGS="--config seed=7".
PYTHON ?= python3.11
CORES ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
SNAKEMAKE := $(BIN)/snakemake --workflow-profile workflow/profiles/default --cores $(CORES)
# Large tensors come and go at every step: kept by the allocator, their memory is not mapped anew each time.
export MALLOC_MMAP_THRESHOLD_ := 4294967296
export MALLOC_TRIM_THRESHOLD_ := 4294967296
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo experiment ci-experiment figures report test test-all test-slurm bench docs lint fuzz audit licences ui tracking-server clean

FUZZ_SECONDS ?= 60
# Given on the command line alone: some shells have a variable HOST with the machine's name.
HOST := 127.0.0.1
PORT := 5000
EXPERIMENT ?= demo

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: setup  ## the whole `demo` experiment, from raw preferences to judged soups
	@[ "$(EXPERIMENT)" = demo ] || { echo "make demo: runs demo alone; run make experiment EXPERIMENT=$(EXPERIMENT)" >&2; exit 2; }
	$(SNAKEMAKE) $(ARGS)
	@cat results/demo/summary.txt 2>/dev/null || true

experiment: setup  ## the experiment in config/experiments/EXPERIMENT.yaml
	$(SNAKEMAKE) --configfile config/experiments/$(EXPERIMENT).yaml $(ARGS)
	@cat results/$(EXPERIMENT)/summary.txt 2>/dev/null || true

ci-experiment:  ## the same DAG with a tiny model, in minutes
	@$(MAKE) --no-print-directory experiment EXPERIMENT=ci

report: setup  ## Snakemake's report of a finished experiment, one HTML file; EXPERIMENT=demo
	$(SNAKEMAKE) --configfile config/experiments/$(EXPERIMENT).yaml --report results/$(EXPERIMENT)/report.html \
		--report-stylesheet workflow/report/report.css $(ARGS)

RESULTS ?= results/$(EXPERIMENT)
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

test-slurm: setup  ## the DAG on a small SLURM cluster that is started here (Debian: apt-get install slurm-wlm munge)
	$(BIN)/python -m pytest tests/slurm

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

ui: setup  ## send what has not been sent, then the MLflow UI on this machine alone, http://127.0.0.1:5000 (PORT)
	@for results in results/*/; do $(BIN)/rlphf track sync --results $${results%/} || true; done
	@$(MAKE) --no-print-directory tracking-server HOST=127.0.0.1

tracking-server: setup  ## an MLflow server that experiments send to, for this machine alone or, with HOST=0.0.0.0, for others
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host $(HOST) --port $(PORT) \
		--backend-store-uri sqlite:///mlflow.db --artifacts-destination mlartifacts --workers 1 $(ARGS)

clean:  ## remove results and tracking data, keep the environment
	rm -rf results mlflow.db .mlflow.db.lock mlartifacts .snakemake
