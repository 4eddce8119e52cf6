PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
DEVICE ?= cpu

.PHONY: demo test test-lowest test-cuda lint docs bench demo-encoder clean

# Installed again only when the dependencies change.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## every method on the bundled demo, with a leaderboard at the end
	$(BIN)/python -m zsad_bench -m method=winclip,anoclip,clip_ad,musc,fiseclip,dual_image dataset=demo batch_size=1,4,16 name=demo
	$(BIN)/python -m zsad_bench.report results/demo
	@echo "Next: real data and real CLIP weights: $(BIN)/python -m zsad_bench dataset=mvtec dataset.root=<folder of MVTec AD>"

# A process a core with one thread each: most tests are too small to share between threads.
test: lint  ## ruff, mypy, import-linter, pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# In an environment of its own; the constraints are written with a tool of the ordinary one.
test-lowest: $(VENV)/.installed  ## the suite on the lower bounds of pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(BIN)/python tools/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt -e '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto

test-cuda: $(VENV)/.installed  ## what only a GPU can show; skipped, with the reason, where there is none
	$(BIN)/python -m pytest -m cuda -n 0 -rs

# The second mypy finds what Windows does not have.
lint: $(VENV)/.installed  ## ruff, its format, mypy, the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy zsad_bench methods datasets
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 zsad_bench methods datasets
	$(BIN)/lint-imports

docs: $(VENV)/.installed  ## the documentation as a site in site/index.html; a broken link stops it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The first three have nothing to do with a device.
bench: $(VENV)/.installed  ## ratios measured side by side, each benchmark in one run; DEVICE=cuda; an hour or more on a CPU
	$(BIN)/python benchmarks/metrics.py --csv results/benchmarks/metrics.csv
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/memory.py --device $(DEVICE)
	$(BIN)/python benchmarks/startup.py --device $(DEVICE)
	$(BIN)/python benchmarks/matching.py --device $(DEVICE)
	$(BIN)/python benchmarks/encoder.py --device $(DEVICE)
	$(BIN)/python benchmarks/smoothing.py --device $(DEVICE)
	$(BIN)/python benchmarks/sweep.py --device $(DEVICE)

demo-encoder: $(VENV)/.installed  ## train the bundled encoder again, about an hour on 2 cores
	$(BIN)/python tools/train_demo_encoder.py --seed 0 --output zsad_bench/demo_encoder

clean:
	rm -rf $(VENV) $(LOWEST) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
