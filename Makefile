# Everything happens in .venv, which the first command makes. PYTHON names the interpreter to make it with,
# TORCH the torch to put in: `make test TORCH=torch==2.13.0`. A venv keeps its torch until another is named.
PYTHON ?= python3
TORCH ?= $(shell cat .venv/torch 2>/dev/null || echo torch)
BIN := .venv/bin
# Two workers on two cores: more threads inside of each would only be in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q
# With ARGS one of the two runs may have nothing to do, which pytest tells by status 5.
NONE_IS_FINE = $(if $(ARGS), || [ $$? -eq 5 ])

.PHONY: help demo test fuzz targets gpu check fix bench clean FORCE
.DEFAULT_GOAL := help

help:
	@echo 'make demo    train a small language model with a compiled pattern, beside dense attention (3 minutes)'
	@echo 'make test    every test; ARGS="-k window" is passed to pytest'
	@echo 'make fuzz    random patterns beside an evaluator of its own (5 minutes); ARGS="--seed 7 --minutes 60"'
	@echo 'make targets compile kernels of each kind for six GPUs, with the oldest and the newest Triton (10 minutes)'
	@echo 'make gpu     with a GPU: test, sanitize, tune, measure and profile kernels (40 minutes)'
	@echo 'make check   format, lint, types, the import law, the line count'
	@echo 'make fix     what the formatter and the linter can mend by themselves'
	@echo 'make bench   measure seven patterns beside their peers; ARGS="--patterns causal" chooses (10 minutes)'
	@echo 'make clean   take away .venv and everything built'
	@echo
	@echo 'The first command makes .venv; PYTHON=python3.12 and TORCH=torch==2.13.0 choose what it is made of.'

demo: .venv/ready
	$(BIN)/python examples/train_bytes.py

test: .venv/ready
	env -u TRITON_INTERPRET $(PYTEST) tests --ignore=tests/interpret $(ARGS)$(NONE_IS_FINE)
	TRITON_INTERPRET=1 $(PYTEST) tests/interpret $(ARGS)$(NONE_IS_FINE)

# The same cases every time; ARGS="--seed 7 --minutes 60" tries others, and tools/fuzz_numerics.py says the rest.
fuzz: .venv/ready
	$(BIN)/python tools/fuzz_numerics.py $(or $(ARGS),--cases 60) --jobs 2

targets: .venv/oldest/ready
	.venv/oldest/bin/python tests/aot/everywhere.py $(ARGS)
	$(BIN)/python tests/aot/everywhere.py $(ARGS)

# Step by step, and what each of them does: `python tools/gpu.py --help`.
gpu: .venv/ready
	$(BIN)/python tools/gpu.py all $(ARGS)

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python tools/count_lines.py

fix: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Its output is in the README and in tests/bench/results.
bench: .venv/ready
	$(BIN)/python tests/bench/run.py $(ARGS)
	$(BIN)/python tests/bench/tables.py

clean:
	rm -rf .venv build dist attnc.egg-info

# torch comes first and alone, so that what follows finds it and does not choose another.
.venv/ready: pyproject.toml .venv/torch
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'attnc needs Python 3.11 or later; name one with `make PYTHON=python3.11 …`' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check '$(TORCH)'
	$(BIN)/pip install -q --disable-pip-version-check -e '.[bench,dev,others]'
	@touch $@

# What is in .venv, but for Triton, of which this is the oldest version that is supported.
.venv/oldest/ready: .venv/ready
	$(BIN)/python -m venv .venv/oldest
	.venv/oldest/bin/pip install -q --disable-pip-version-check triton==3.6.0
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$(.venv/oldest/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rest.pth
	@touch $@

.venv/torch: FORCE
	@mkdir -p .venv
	@printf '%s\n' '$(TORCH)' | cmp -s - $@ || printf '%s\n' '$(TORCH)' > $@
