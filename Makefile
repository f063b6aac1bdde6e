# make run     start the example job file        make test       the whole suite but its longest tests
# make check   format, lint, types, imports, test  make check-all  the longest tests: many kills, real servers
# make bench   the figures, beside peers           make coverage   which lines the suite reaches, in all processes
# make fuzz    hostile bytes                      make mutate     small changes to the code that no test notices
#
# Nothing is needed but a Python >= 3.11 with venv, and a package index. `make test PYTHON=python3.12` uses another
# interpreter; `make test ARGS="-k cron -x"` hands pytest its arguments, `WORKERS=0` runs the tests in one process,
# `TEST_SEED=1` runs other examples of the property tests.

VENV   ?= .venv
WORKERS ?= 2
BIN    := $(VENV)/bin
MODERN := import sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for it in $(BIN)/python python3 python3.14 python3.13 python3.12 python3.11; do \
            "$$it" -c '$(MODERN)' 2>/dev/null && { echo "$$it"; break; }; done)
HAVE   := $(shell "$(PYTHON)" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
INSTALLED := $(VENV)/.installed-$(HAVE)
TOOLS     := $(VENV)/.tools-$(HAVE)

.PHONY: run test check check-all packages bench fuzz coverage mutate fmt format lint types imports docs clean

run: $(INSTALLED)
	@echo "$(BIN)/rpr apply --ephemeral jobs.example.toml      (Ctrl-C ends it)"
	@$(BIN)/rpr apply --ephemeral jobs.example.toml || test $$? -eq 130

test: $(TOOLS)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: format lint types imports test

# The tests with the marker `all`, which `make test` leaves out.
check-all: $(TOOLS)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m all $(ARGS)

# Debian packages that some tests need. A test skips, and names its package, where this cannot install it.
packages:
	@sh tests/install_packages.sh

# In an environment of its own, with the peers of PyPI and Debian; `.bench` keeps what is slow to make.
bench: $(INSTALLED)
	$(BIN)/python -m bench $(ARGS)

fuzz: $(TOOLS)
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install --quiet atheris || echo "without atheris: by chance"
	$(BIN)/python -m tests.fuzz $(ARGS)

# `.mutate` keeps which tests reach which lines.
coverage: $(TOOLS)
	$(BIN)/python -m tests.measure -n $(WORKERS) --dist worksteal $(ARGS)

mutate: $(TOOLS)
	$(BIN)/python -m tests.mutate $(ARGS)

fmt: $(TOOLS)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format: $(TOOLS)
	$(BIN)/ruff format --check .

lint: $(TOOLS)
	$(BIN)/ruff check .

types: $(TOOLS)
	$(BIN)/mypy

imports: $(TOOLS)
	$(BIN)/lint-imports

docs: $(TOOLS)
	$(BIN)/python -m pytest tests/docs $(ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis .bench .mutate

# The stamps carry the interpreter's version: asking for another one makes the environment anew, a changed
# pyproject.toml only installs again.
$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "cannot find a Python >= 3.11 with venv: name one with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c '$(MODERN)' || { echo "cannot use \`$(PYTHON)\`: Python >= 3.11 with venv is needed" >&2; exit 1; }
	@has=$$($(BIN)/python -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null); \
	 test "$$has" = "$(HAVE)" || "$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(TOOLS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group dev
	@sh tests/install_packages.sh
	@if command -v npm >/dev/null 2>&1; then \
	  npm install --silent --no-audit --no-fund --prefix $(VENV)/node ajv@8 yaml-language-server@1 @taplo/cli@0.7 \
	    >/dev/null 2>&1 || echo "without ajv and language servers: no npm registry"; fi
	@test -x $(BIN)/promtool || command -v promtool >/dev/null || ! command -v apt-get >/dev/null || { $(PROMTOOL); } >/dev/null 2>&1 || \
	  echo "without promtool: cannot get the Debian package prometheus"
	@touch $@

# promtool alone, out of its package: installing that would bring a server that starts
PROMTOOL = mkdir -p $(VENV)/debian && cd $(VENV)/debian && \
  { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } && \
  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && mv usr/bin/promtool ../bin/ && rm -r usr *.deb
