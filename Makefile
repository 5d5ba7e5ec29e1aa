# `make demo` and `make test` need Python 3.10 to 3.13 and nothing else. PYTHON=python3.12 picks another one.
PYTHON ?= python3
DEMO := .venv-demo
DEV := .venv
DEMO_OUT := out/demo

.PHONY: demo test soak nightly lint types sbom clean

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
	$(DEV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev,ray]"
	$(DEV)/bin/python -m pytest -m nightly

lint: $(DEV)/.installed
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .

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

sbom: $(DEV)/.installed
	# What the development environment is made of, as CycloneDX JSON; the tool lives in an environment of its own.
	mkdir -p out
	$(PYTHON) -m venv out/sbom-tool
	out/sbom-tool/bin/python -m pip install --quiet --disable-pip-version-check "cyclonedx-bom>=7,<8"
	out/sbom-tool/bin/cyclonedx-py environment $(DEV)/bin/python --output-format JSON --output-file out/sbom.json
	@echo "components: out/sbom.json"

clean:
	rm -rf $(DEMO) $(DEV) out
