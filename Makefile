VENV := .venv
CURRENT := .venv-current

# One thread per worker gives the same sums everywhere; loadfile keeps the tests of one file, so Lava's forks, in one worker.
TEST_SETTINGS := OMP_NUM_THREADS=1 MPLBACKEND=Agg
TEST_FLAGS := -n 2 --dist loadfile -rs

.PHONY: help env env-current demo gallery test test-slow test-current check format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

env:  ## make .venv: Python 3.10 with Lava, or 3.11 to 3.13 without
	@sh scripts/make_env.sh lava

env-current:  ## make .venv-current: Python 3.11 to 3.13 with current torch and numpy, without Lava
	@sh scripts/make_env.sh current

demo: env  ## run the whole chain on the digits and print where the report is
	$(VENV)/bin/hardspike run train/recipes/digits.toml

gallery: demo  ## analyse the demo's run, and copy three of the pictures into docs/gallery for the README
	$(VENV)/bin/hardspike analyse all runs/digits
	mkdir -p docs/gallery
	cp runs/digits/analyses/eps/eps.svg runs/digits/analyses/heatmaps/maps_spike1.svg docs/gallery/
	cp runs/digits/analyses/energy/energy-operations.svg docs/gallery/

test: env  ## run the tests but the slow ones, and those that `check` runs
	$(TEST_SETTINGS) $(VENV)/bin/python -m pytest $(TEST_FLAGS) -m "not slow" --ignore tests/test_layout.py

test-slow: env  ## run the slow tests: several processes, long fuzzing, comparisons with other projects
	$(TEST_SETTINGS) $(VENV)/bin/python -m pytest $(TEST_FLAGS) -m slow

test-current: env-current  ## the same as test on Python 3.11 to 3.13, Lava's tests skipped
	$(TEST_SETTINGS) $(CURRENT)/bin/python -m pytest $(TEST_FLAGS) -m "not slow" --ignore tests/test_layout.py

check: env  ## lint, format, types, layout and import direction
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q tests/test_layout.py

format: env  ## sort imports and format
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

clean:  ## remove caches and build leftovers; environments and runs stay
	rm -rf build hardspike.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
