# `make demo` and `make test` need Python 3.10 to 3.13 and nothing else. PYTHON=python3.12 picks another one.
PYTHON ?= python3
DEMO := .venv-demo
DEV := .venv
DEMO_OUT := out/demo

.PHONY: demo test soak nightly lint types docs man package clean

demo: $(DEMO)/.installed
	$(DEMO)/bin/kanoclip-run --source examples/hazelnut_toy/test --output $(DEMO_OUT) --jsonl $(DEMO_OUT)/frames.jsonl
	@echo "annotated images: $(DEMO_OUT)/"

test: $(DEV)/.installed
	# Two processes, a file in one of them. torch with one thread in each: more would wait for each other's cores.
	OMP_NUM_THREADS=1 $(DEV)/bin/python -m pytest -n 2 --dist loadfile

soak: $(DEV)/.installed
	# Three minutes of a stream: neither slower nor larger. Light enough to run beside the others.
	$(DEV)/bin/python -m pytest -m soak

nightly: $(DEV)/.installed
	# The long forms: half an hour of a stream, ten deaths of a camera. One at a time: they measure.
	# Ray, 240 MB, is for these alone.
	$(DEV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev,docs,ray]"
	$(DEV)/bin/python -m pytest -m nightly
	.ci/package

lint: $(DEV)/.installed
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/codespell

docs: $(DEV)/.installed
	# site/index.html; a link, an anchor or a name that leads nowhere fails it. `make docs SERVE=serve` shows changes.
	$(DEV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(DEV)/bin/python tools/site.py $(SERVE)

man: $(DEV)/.installed
	$(DEV)/bin/python tools/command_pages.py man build/man

package:
	# Wheel and sdist in dist/, checked, and the wheel alone tried with Python 3.10 and 3.13.
	.ci/package

types: $(DEV)/.installed
	# The folders are installed under other names (package-dir): show mypy the names that the code imports.
	mkdir -p build/types/kanoclip
	for name in runtime export train benchmarks; do ln -sfn $(CURDIR)/$$name build/types/kanoclip/$$name; done
	MYPYPATH=build/types $(DEV)/bin/mypy -p kanoclip.runtime -p kanoclip.export \
		-p kanoclip.train.data -p kanoclip.train.knowledge -p kanoclip.train.training -p kanoclip.train.evaluation

$(DEMO)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check ".[cpu]"
	@touch $@

$(DEV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

clean:
	rm -rf $(DEMO) $(DEV) out build dist site
