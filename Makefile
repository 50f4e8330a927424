# Every command of this project. Each target does its own set-up in .venv, so `make demo` works in a fresh clone.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup dev cluster constraints demo demo-full test quick nemesis fuzz gpu-check lint type smoke same-numbers docs picture clean

# Another interpreter: make PYTHON=/path/to/python3.12 setup. Candidates are run, not only looked up: a name that exists may still not start.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo "$$name"; break; fi; done)
# Further options for the command behind demo and test: make demo ARGS="--seeds 0-3", make test ARGS="-k splits".
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# What is installed: each stamp is made by the installer once all of a file is there, and holds the file's checksum, so that an
# interrupted installation is done again and a newer file with equal content installs nothing.
SETUP := $(VENV)/.pyproject.toml.installed
DEV := $(VENV)/.constraints-dev.txt.installed
CLUSTER := $(VENV)/.constraints-cluster.txt.installed
# pip or uv; by default uv if it is there. make INSTALLER=pip setup
INSTALL := experiments/commands/install.py $(if $(INSTALLER),--installer $(INSTALLER))

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SETUP)  ## make .venv with the exact packages of constraints.txt and this project (editable)
	@:

dev: $(DEV)  ## the same, and the tools of the tests (constraints-dev.txt)
	@:

cluster: $(CLUSTER)  ## the same as setup, and what `ray up` needs on the machine that it is typed on (constraints-cluster.txt)
	@:

demo: setup  ## a small Table 4 on scikit-learn's digits in three minutes: trials, table, picture
	$(BIN)/python experiments/table4.py --preset demo $(ARGS)

demo-full: setup  ## the same with nine strategies in four conditions: 108 trials
	$(BIN)/python experiments/table4.py --preset demo-full $(ARGS)

test: dev  ## the tests, without those marked slow (all: make test ARGS="-m 'slow or not slow'")
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

quick: dev lint type  ## lint, types, and the tests that start no process and train nothing: a minute, for the inner loop
	$(BIN)/python -m pytest --quick -m "not slow" -q -rfE --durations=3 $(ARGS)

nemesis: dev  ## kill, freeze, starve and interrupt a whole grid, 44 times over (half an hour; needs Linux)
	$(BIN)/python -m pytest -m slow -s tests/experiments/test_nemesis.py $(ARGS)

fuzz: dev  ## random presets, settings, models and checkpoints: each accepted or refused in one line (make fuzz ARGS="--seconds 100 --seed 0")
	$(BIN)/python tests/fuzz.py $(ARGS)

lint: dev  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

type: dev  ## mypy, strict
	$(BIN)/mypy

# One condition, two seeds, three rounds: enough to see that every command runs to its end.
SMOKE := build/smoke
SHORT := --preset demo --mismatch-ratios 0.4 --ood-ratios 0.6 --seeds 0-1 --rounds 3 -o $(SMOKE)/run

smoke: setup  ## the real commands, shortened, into build/smoke: a trial, tables, figures, a small CLIPN, a report
	rm -rf $(SMOKE)
	$(BIN)/python experiments/table4.py --help >/dev/null
	$(BIN)/python experiments/trial.py --dataset digits --mismatch-ratio 0.2 --ood-ratio 0.6 --strategy vlpure --seed 0
	$(BIN)/python experiments/report.py --data
	$(BIN)/python experiments/table4.py $(SHORT) --strategies random,conf,vlpure
	$(BIN)/python experiments/table4.py $(SHORT) --strategies random,conf,vlpure --dry-run
	$(BIN)/python experiments/table6.py $(SHORT)
	$(BIN)/python experiments/table7.py $(SHORT) --strategies random,conf,vlpure,vlpure-no-visual,vlpure-fixed-scale,vlpure-bare
	$(BIN)/python experiments/table8.py $(SHORT) --strategies random,conf,ll,coreset,vlpure,vlpure-ll,vlpure-coreset
	$(BIN)/python experiments/table9.py $(SHORT)
	$(BIN)/python experiments/table10.py --preset demo --seeds 0-1 --rounds 3 -o $(SMOKE)/run --strategies random,conf,lfosa
	$(BIN)/python experiments/figures.py $(SHORT) --strategies random,conf,vlpure
	$(BIN)/python -m data.drawings $(SMOKE)/images --num-train 12 --num-test 4
	$(BIN)/python experiments/train_clipn.py --dataset folder:$(SMOKE)/images/drawings --steps-clip 150 --steps-no 60 \
		--feature-passes 1 -o $(SMOKE)/clipn.pt
	$(BIN)/python experiments/table5.py --preset demo --data-root $(SMOKE)/images --clipn-checkpoint $(SMOKE)/clipn.pt \
		--clip-model $(SMOKE)/clipn.json --datasets domainnet-sketch,domainnet-real --seeds 0-1 --rounds 3 -o $(SMOKE)/run
	$(BIN)/python experiments/report.py $(SMOKE)/run -o $(SMOKE)/report -q
	test -s $(SMOKE)/report/index.html && test -n "$$(ls $(SMOKE)/run/figures/*.png)"
	for table in 4 5 6 7 8 10; do \
		test -s $(SMOKE)/run/table$$table/table$$table.md && test -s $(SMOKE)/run/table$$table/trials.csv || exit 1; done
	test -s $(SMOKE)/run/table9/table9.md && test -s $(SMOKE)/run/table9/auroc.png && test -s $(SMOKE)/report/table9/table9.md

gpu-check: dev  ## this machine's GPU: tests, speed of every part, the paper's card-hours (make gpu-check ARGS="-o check.json")
	$(BIN)/python benchmarks/gpu_check.py $(ARGS)

# The guard of a change that must not move a number: the same seeded grid from the commit BASE and from the working tree.
BASE ?= HEAD
same-numbers: dev  ## compare a seeded run's fingerprints and records with those of the commit BASE (default: HEAD)
	$(BIN)/python tests/same_numbers.py $(BASE) $(ARGS)

docs: setup  ## write docs/strategies.md from the code
	$(BIN)/python experiments/commands/strategies_page.py

picture: setup  ## draw docs/demo.png from the demo's records
	$(BIN)/python experiments/commands/readme_picture.py

clean:  ## remove build output and tool caches; .venv, runs and results stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

constraints:  ## write constraints*.txt anew from pyproject.toml (needs uv); versions stay unless pyproject.toml forbids them
	$(BIN)/python experiments/commands/lock_packages.py

# The interpreter that makes .venv; one that is there already needs none.
define INSTALLER_RUN
@python="$(or $(PYTHON),$(wildcard $(BIN)/python))"; \
if [ -z "$$python" ] || ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	echo "error: Python 3.11 or newer is needed$(if $(PYTHON), and PYTHON=$(PYTHON) is not one,); install it or name one: make PYTHON=/path/to/python3.11 $(or $(MAKECMDGOALS),setup)" >&2; \
	exit 2; \
fi; \
"$$python" $(INSTALL)
endef

$(SETUP): constraints.txt pyproject.toml
	$(INSTALLER_RUN)

$(DEV): constraints-dev.txt $(SETUP)
	$(INSTALLER_RUN) --extra dev

$(CLUSTER): constraints-cluster.txt $(SETUP)
	$(INSTALLER_RUN) --extra cluster
