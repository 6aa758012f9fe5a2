# make book: environment, four notebooks on digits, the book.   make test: environment, every test.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: book test bench results lock clean
.DEFAULT_GOAL := book

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.11 book"'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

book: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/softprune run all --dataset digits
	$(BIN)/python -m softprune.book

test: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ruff check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

bench: $(READY)
	$(BIN)/python benchmarks/ratios.py

# the trainings that the committed CIFAR-10 pages quote, one at a time, resumable
results: $(READY)
	$(BIN)/softprune train --dataset cifar10 --profile laptop -p width=16 -p epochs=14
	$(BIN)/softprune train --dataset cifar10 --profile laptop -p width=16 -p epochs=14 --without cat
	$(BIN)/softprune train --dataset cifar10 --profile laptop -p width=16 -p epochs=14 -p penalty=none
	$(BIN)/softprune train --dataset cifar10 --profile laptop
	$(BIN)/softprune train --dataset cifar10 --profile laptop --without cat
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/softprune run all --dataset cifar10

# versions already in the lock are kept; add --upgrade to move them
lock:
	uv pip compile --universal --generate-hashes --extra test --python-version 3.11 --quiet --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

clean:
	rm -rf _build .pytest_cache
