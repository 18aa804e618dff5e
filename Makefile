# `make` lists the targets. Variables: PYTHON, TORCH, VENV (make install PYTHON=python3.13 TORCH=torch==2.12.0).
.DEFAULT_GOAL := help
.PHONY: help install test faults demo lint wheel clean

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv

RUN := $(VENV)/bin/python
DEMO_MODELS := before=fashion LRVDVAE=lrvdvae-fashion "after LR=runs/demo/lr" "after plain steps=runs/demo/plain"
# Each value of TORCH has its own stamp file, so another value installs that torch.
STAMP := $(VENV)/installed-$(shell printf '%s' '$(TORCH)' | cksum | cut -d ' ' -f 1)

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

install: $(STAMP) ## create .venv, and install torch, this checkout and the tools into it

$(STAMP): setup.py pyproject.toml scripts/install.sh vdvae_lr/__init__.py
	VENV='$(VENV)' PYTHON='$(PYTHON)' TORCH='$(TORCH)' EXTRAS=dev scripts/install.sh
	@rm -f $(VENV)/installed-*
	@touch $@

test: $(STAMP) ## run every test (three processes of one thread each)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 3 --dist worksteal

faults: $(STAMP) ## run the long tests of failures: runs killed at random moments, 20,000 steps (some minutes)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 -m faults tests/faults

demo: $(STAMP) ## the small bundled model with LR and without, beside the bundled LRVDVAE; writes runs/demo and demo
	$(RUN) train.py --hps fashion --save_dir runs/demo --desc lr
	$(RUN) train.py --hps fashion --save_dir runs/demo --desc plain --alpha_T 0
	$(RUN) -m vdvae_lr compare $(DEMO_MODELS) --dataset fashion_small --examples 500 --content_dimensions 784 --out demo
	$(RUN) -m vdvae_lr noise $(DEMO_MODELS) --dataset fashion_small --unit prior_scale --groups 10:13 \
		--variances 0 1 --examples 100 --differences --out demo/noise

lint: $(STAMP) ## check style, format and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

wheel: $(STAMP) ## build dist/*.whl, which contains the presets, the small images and the small model
	rm -rf build
	$(RUN) -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir dist .
	rm -rf build
	@ls dist/*.whl

clean: ## remove what the targets above created, but keep runs
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find vdvae_lr tests data scripts -name __pycache__ -type d -prune -exec rm -rf {} +
