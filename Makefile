# What a person types. Each target first sets up what it needs; `make` alone explains.

PYTHON ?= python3
BIN := .venv/bin
PORT ?= 5000
CORES ?= all
FAULTS ?= 60
SEED ?= 1
READY := .venv/ready
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: help setup table1 core all-tables evidence ablations tuning recover test test-long check audit chaos ui pin restore

help: ## these lines
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 14

setup: $(READY) ## the environment in .venv, with plain pip; nothing is done when it is up to date

# torch goes first and alone: torchvision and others ask for "torch" and pip would weigh every build it finds for them;
# installed before, the build that your index gives for this version (CPU or CUDA) stays. To choose another build,
# `make setup` keeps a torch of this version that is already in .venv.
$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "VIKDF needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": name another with `make setup PYTHON=python3.12`")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

table1: $(READY) ## results/table1.csv: the whole path, from the sources to the table
	$(RUN) snakemake --cores $(CORES)

core: $(READY) ## results/core/table1.csv: VIKDF, its language model alone and the controls, without the other systems
	$(RUN) snakemake --cores $(CORES) core

all-tables: $(READY) ## results/all: every table and figure of the paper, each with its sha256
	$(RUN) snakemake --cores $(CORES) results/all

evidence: $(READY) ## results/evidence.csv: the zero-data rows and their controls over five seeds
	$(RUN) snakemake --cores $(CORES) results/evidence.csv

ablations: $(READY) ## results/table3.csv and figure7.svg: VIKDF without one of its parts, and by its number of queries
	$(RUN) snakemake --cores $(CORES) results/table3.csv results/figure7.svg

tuning: $(READY) ## results/tuning.csv: what each learning rate gave each system on validation data, the same budget for all
	$(RUN) snakemake --cores $(CORES) results/tuning.csv

recover: $(READY) ## whatever stopped a run, this brings it to its end: what is harmed is made again, what is half done goes on
	$(RUN) vikdf recover

test: $(READY) ## the tests, the tiny run end to end among them: some 25 minutes
	$(RUN) python -m pytest -m "not long"

test-long: $(READY) ## what takes longer: two clean runs, kills, hostile items and damaged files in numbers
	$(RUN) python -m pytest -m long

check: $(READY) ## style, params against the schema, the laws of the layout (Snakemake's lint among them)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) snakefmt --check Snakefile workflow
	$(RUN) vikdf validate params.yaml presets/*.yaml
	$(RUN) python -m pytest -q tests/test_layout.py tests/test_params.py

audit: $(READY) ## the dependencies: whole, as pinned, without known faults; docs/sbom.json and docs/licences.md are theirs
	$(RUN) python -m docs.supply

chaos: $(READY) ## sixty faults in tiny runs, each brought to its end; the table says how (FAULTS=60 SEED=1)
	$(RUN) python -m chaos --faults $(FAULTS) --seed $(SEED)

ui: $(READY) ## every run in MLflow, on 127.0.0.1 (PORT=5001 for another port)
	$(RUN) vikdf ui --port $(PORT)

pin: $(READY) ## after a run: DVC keeps the products as they are; dvc.lock, to be committed, names their bytes
	$(RUN) dvc commit --force

# --relink: by its times alone DVC would take a file for whole in which a bit was flipped, and the last line would seal it.
restore: $(READY) ## the products that dvc.lock names, out of DVC's cache; Snakemake then has nothing to do
	$(RUN) dvc checkout --relink
	@$(RUN) dvc status --quiet || { echo "params.yaml or the code is not what dvc.lock was made with: \`dvc status\` names it, \`dvc repro\` runs it"; exit 1; }
	$(RUN) snakemake --touch --forceall --cores 1
	$(RUN) vikdf verify --seal
