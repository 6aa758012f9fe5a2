# make book: environment, notebooks on digits that are not up to date, the book.   make test: environment, tests.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: book test test-class student-kit student-book teacher-book bench results plan lock clean
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
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup

# one source, two books: assignments as released, or with solutions and teacher's notes
student-book: $(READY)
	$(BIN)/python -m softprune.book --edition student

teacher-book: $(READY)
	$(BIN)/python -m softprune.book --edition teacher

# what students get to work in: this commit without solutions, hidden tests and mark schemes
student-kit:
	mkdir -p _build
	git archive --format=zip --prefix=kit/ -o _build/student-kit.zip HEAD -- . ':(exclude)assignments/source' ':(exclude)tests' \
		':(exclude)book/class/teachers-notes.md'
	@echo _build/student-kit.zip

# every seeded mistake, all five assignments through nbgrader, submissions that misbehave
test-class: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m slow tests/test_assignments.py tests/test_classroom.py \
		tests/test_editions.py

bench: $(READY)
	$(BIN)/python benchmarks/ratios.py

# trainings, fits, sweeps and walkthroughs, one training at a time, resumable; PROFILE=paper for one GPU.
# Snakemake lives in an environment of its own: readers do not need it, and it only starts commands.
PROFILE ?= laptop
SNAKEMAKE := .venv-heavy/bin/snakemake -s workflow/Snakefile --config profile=$(PROFILE)

.venv-heavy/.ready: workflow/requirements.txt
	$(PYTHON) -m venv .venv-heavy
	.venv-heavy/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

results: $(READY) .venv-heavy/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" $(SNAKEMAKE) --profile workflow/profiles/one-machine

# what `make results` would do, and what a cluster would be told
plan: .venv-heavy/.ready
	$(SNAKEMAKE) --profile workflow/profiles/one-machine --dry-run --quiet
	.venv-heavy/bin/snakemake -s workflow/Snakefile --profile workflow/profiles/slurm --dry-run --quiet

# versions already in the lock are kept; add --upgrade to move them
lock:
	uv pip compile --universal --generate-hashes --extra test --python-version 3.11 --quiet --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

clean:
	rm -rf _build .pytest_cache
