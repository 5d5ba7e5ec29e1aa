# `make demo` and `make test` need Python 3.10 to 3.13 and nothing else. PYTHON=python3.12 picks another one.
PYTHON ?= python3
DEMO := .venv-demo
DEV := .venv
DEMO_OUT := out/demo
PARTS := examples/hazelnut_toy/test

.PHONY: demo test soak nightly lint types docs man package sbom clean

demo: $(DEMO)/.installed
	rm -rf $(DEMO_OUT)
	# As it ships, on photographs of a part that it has never seen.
	$(DEMO)/bin/kanoclip-run --source $(PARTS) --output $(DEMO_OUT)/before --jsonl $(DEMO_OUT)/before/frames.jsonl \
		--no-table
	# Four good photographs make it the part's own; the threshold is chosen so that the bad ones are found.
	$(DEMO)/bin/kanoclip-learn --output $(DEMO_OUT)/hazelnut.kanoclip --source $(PARTS)/good --max-frames 4 \
		--bad $(PARTS)/colour --catch 0.95 --plot $(DEMO_OUT)/recall.png
	$(DEMO)/bin/kanoclip-run $(DEMO_OUT)/hazelnut.kanoclip --source $(PARTS) --output $(DEMO_OUT)/after \
		--jsonl $(DEMO_OUT)/after/frames.jsonl --no-table
	$(DEMO)/bin/python examples/overview.py $(PARTS) $(DEMO_OUT)/before $(DEMO_OUT)/after \
		--output $(DEMO_OUT)/overview.jpg
	@echo
	@echo "Your own part, with some good photographs of it in good/ and bad ones in bad/ if you have any:"
	@echo "  $(DEMO)/bin/kanoclip-learn --output part.kanoclip --source good/ --bad bad/"
	@echo "  $(DEMO)/bin/kanoclip-run part.kanoclip --source new/ --output annotated/"
	@echo "  $(DEMO)/bin/kanoclip-run part.kanoclip --camera 0"
	@echo "docs/quickstart.md has the same, step by step."

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
	NO_MKDOCS_2_WARNING=1 $(DEV)/bin/python tools/build_site.py $(SERVE)

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
	MYPYPATH=build/types:tools $(DEV)/bin/mypy tools/*.py .ci/*.py

$(DEMO)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check ".[cpu]"
	@touch $@

$(DEV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

sbom: $(DEV)/.installed
	# What the development environment is made of, as CycloneDX JSON; the tool lives in an environment of its own.
	mkdir -p out
	$(PYTHON) -m venv out/sbom-tool
	out/sbom-tool/bin/python -m pip install --quiet --disable-pip-version-check "cyclonedx-bom>=7,<8"
	out/sbom-tool/bin/cyclonedx-py environment $(DEV)/bin/python --output-format JSON --output-file out/sbom.json
	@echo "components: out/sbom.json"

clean:
	rm -rf $(DEMO) $(DEV) out build dist site
