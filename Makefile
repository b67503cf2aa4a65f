# make demo    draw sample images, train on them, serve the page and the API on port 8133
# make test    format, lint, types, tests
# make bench   measure learning in a short form, on drawn images; figures in demo/out/bench/
# make update  install the newest version of every library, write constraints.txt, run the tests
# make clean   remove what they have made

DEMO_PORT ?= 8133
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $$python && break; done)
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test bench format update browser clean

demo: $(VENV)/.requirements
	@$(RUN) demo/run.py --port $(DEMO_PORT)

test: $(VENV)/.requirements-dev browser
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/.requirements-dev
	@$(RUN) benchmarks/short.py

format: $(VENV)/.requirements-dev
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

update:
	rm -rf $(VENV)
	@$(MAKE) --no-print-directory $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	{ sed -n '/^#/p' constraints.txt; $(RUN) -m pip freeze --all | grep -v '^pip=='; } > constraints.new
	mv constraints.new constraints.txt
	@$(MAKE) --no-print-directory test

# The page is tested in a real browser: Debian's, or else the one that Playwright downloads.
browser: $(VENV)/.requirements-dev
	@test -x /usr/bin/chromium || $(RUN) -m playwright install chromium || \
		{ echo "make test needs a browser: run 'apt-get install chromium' and try again."; exit 1; }

$(VENV)/.%: %.txt constraints.txt | $(VENV)/bin/python
	@echo "Installing $< into $(VENV); the first time this takes a few minutes."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r $< -c constraints.txt
	@touch $@

$(VENV)/.requirements-dev: requirements.txt

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and none was found:" \
		"install one, or name it with 'make PYTHON=/path/to/python'."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: name another with 'make PYTHON=...'."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: on Debian run 'apt-get install python3-venv'."; exit 1; }

clean:
	rm -rf $(VENV) demo/out
