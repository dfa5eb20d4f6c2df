# Every target sets itself up: `make demo` and `make test` are all that a fresh machine needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
RANKS ?= 2
TARGET ?= cpu

# torch's CPU build where there is no GPU. uv does not read pip's configuration, so a local folder of wheels that pip
# knows is handed on; otherwise uv picks the build by what the machine has.
WHEELS := $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
export UV_FIND_LINKS := $(or $(UV_FIND_LINKS),$(WHEELS))
TORCH := $(if $(UV_FIND_LINKS),,--torch-backend=$(if $(shell command -v nvidia-smi 2>/dev/null),auto,cpu))

.PHONY: help setup demo toy test lint bench soak docs package image clean

help:
	@echo "make demo    render faces, train on $(RANKS) ranks, verify on people never seen: about 5 minutes on 2 cores"
	@echo "make test    lint, type checks, tests"
	@echo "make bench   measure head, loaders, parts, protocols and step, in under 10 minutes on 2 cores, which should be idle"
	@echo "make soak    kill ranks, nodes and links of runs for up to 30 minutes, as root, and write runs/soak.json"
	@echo "make docs    the site of docs/ in site/, built strictly"
	@echo "make package a wheel and a source archive in dist/, checked"
	@echo "make toy     draw eight people in two dimensions under the losses that led to ArcFace: minutes on a core"
	@echo "make image   the image of docker/Dockerfile, TARGET=cpu or cuda, by buildah; without a Docker engine"
	@echo "make setup   the virtual environment in .venv alone"
	@echo "make lint    ruff and ty alone"

setup: .venv/ready

.venv/ready: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "arcdist needs Python 3.10 or newer; found $$($(PYTHON) --version). Use: make PYTHON=python3.11 setup" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ echo "cannot make .venv: the venv module is missing (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' constraints.txt)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(TORCH) -c constraints.txt -e ".[test]"
	@command -v nvidia-smi >/dev/null || $(BIN)/python -c 'import torch; assert torch.version.cuda is None, \
		"this machine has no GPU, but the CUDA build of torch was installed"'
	@touch $@

demo: setup
	@rm -rf runs/demo
	OMP_NUM_THREADS=1 TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 $(BIN)/torchrun --standalone --nproc_per_node=$(RANKS) launch/train.py recipe=demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check --error-on-warning

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

toy: setup
	$(BIN)/arcdist reproduce toy picture=runs/toy.png --json runs/toy.json

bench: setup
	@mkdir -p runs/bench
	$(BIN)/arcdist bench head --quick --json runs/bench/head.json pictures=runs/bench
	$(BIN)/arcdist bench data --quick --json runs/bench/data.json
	$(BIN)/arcdist bench parts --quick --json runs/bench/parts.json
	$(BIN)/arcdist bench evaluate --quick --json runs/bench/evaluate.json
	$(BIN)/arcdist bench step --quick --json runs/bench/step.json

soak: setup
	@mkdir -p runs
	timeout --signal=INT --kill-after=1m 30m $(BIN)/arcdist bench faults --json runs/soak.json

docs: setup
	$(BIN)/python docs/site/make_site.py site

package: setup
	$(BIN)/uv build --quiet --clear --build-constraints constraints.txt
	$(BIN)/uv tool run twine==7.0.0 check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/uv tool run check-wheel-contents==0.6.3 dist/*.whl

image:
	$(if $(UV_FIND_LINKS),TORCH=) bash docker/build.sh $(TARGET)

clean:
	rm -rf .venv build dist *.egg-info runs data site
