PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench demo-encoder clean

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
test: lint  ## ruff, mypy, pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy zsad_bench methods datasets

bench: $(VENV)/.installed  ## ratios measured side by side in one run
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/memory.py

demo-encoder: $(VENV)/.installed  ## train the bundled encoder again, about an hour on 2 cores
	$(BIN)/python tools/train_demo_encoder.py --seed 0 --output zsad_bench/demo_encoder

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
