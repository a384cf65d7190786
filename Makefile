# Two commands for a newcomer: `make demo` and `make test`. Everything else is listed by `make help`.

PYTHON ?= python3
TFLITE_PYTHON ?= python3.11
PEERS_PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-tflite-runtime test-backends test-pi bench bench-quick bench-compare bench-report bench-peers bench-twin bench-digits bench-resnet bench-few-bits check-predictions results widths plot bundled kernels wheel bench-device docs lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[litert]'
	@touch $@

$(VENV)/.tests: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[convert,test]'
	@touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime  ## convert the example model and classify a picture
	$(BIN)/edge convert examples/digits.h5 --bits 1
	$(BIN)/edge run examples/image.png -m examples/digits.edge

test: $(VENV)/.tests  ## all tests but the slow ones
	$(BIN)/python -m pytest -q --durations 20 -n auto --dist worksteal -m 'not slow and not tflite_runtime and not pi'

test-slow: $(VENV)/.tests  ## the slow tests
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m slow

# tflite-runtime has releases for CPython 3.11 and older, built against numpy 1.
.venv-tflite/.installed: pyproject.toml
	$(TFLITE_PYTHON) -m venv --clear .venv-tflite
	.venv-tflite/bin/python -m pip --disable-pip-version-check -q install -e '.[tflite-runtime]' 'tflite-runtime==2.14.*' 'pytest>=8'
	@touch $@

test-tflite-runtime: $(VENV)/.tests .venv-tflite/.installed  ## our .tflite files in tflite-runtime 2.14 (CPython 3.11)
	rm -rf .venv-tflite/cases
	$(BIN)/python tests/tflite_cases.py .venv-tflite/cases
	EDGE_TFLITE_CASES=.venv-tflite/cases .venv-tflite/bin/python -m pytest -q --noconftest -m tflite_runtime tests/test_tflite_runtime.py

test-backends: $(VENV)/.tests  ## layers and training steps on Keras' jax backend, beside TensorFlow; installs jax into an environment of its own
	$(PYTHON) -m venv .venv-backends && .venv-backends/bin/python -m pip --disable-pip-version-check -q install -e '.[convert,test]' 'jax[cpu]'
	.venv-backends/bin/python -m pytest -q tests/test_training_backends.py

PI_CPU ?= cortex-a53 cortex-a72 cortex-a76

test-pi: $(VENV)/.tests  ## bundle and kernels on emulated Raspberry Pis (minutes a core); PI_CPU=cortex-a72 for one, EDGE_PI_ROOT
	EDGE_PI_CPU="$(PI_CPU)" $(BIN)/python -m pytest -q -m pi

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[bench,convert,test]'
	@touch $@ $(VENV)/.runtime $(VENV)/.tests

BENCH = $(BIN)/python -m pytest -q -p no:cacheprovider --benchmark-quiet

bench: $(VENV)/.bench  ## measure everything in one run; writes benchmarks/results/bench.json, .md and .html
	$(BENCH) benchmarks --bench-run benchmarks/results/bench.json

bench-quick: $(VENV)/.bench  ## the main figures alone, in the terminal (under two minutes)
	$(BENCH) benchmarks -m quick --bench-rounds 30

bench-compare: $(VENV)/.bench  ## what the last run changed; ARGS="--baseline FILE.json --all --fail-above 1.15"
	$(BIN)/python benchmarks/bench_compare.py $(ARGS)

bench-report: $(VENV)/.bench  ## make the pages of benchmarks/results/bench.json again, without measuring
	$(BIN)/python benchmarks/bench_pages.py

# Larq Compute Engine has a wheel for CPython 3.11 and needs versions of its own. Once made, `make bench` finds it too.
.venv-peers/.installed: benchmarks/peers/requirements.txt
	$(PEERS_PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip --disable-pip-version-check -q install -r $<
	@touch $@

bench-peers: $(VENV)/.bench .venv-peers/.installed  ## the Larq zoo against Larq Compute Engine; makes an environment for it (once; minutes)
	$(BENCH) benchmarks/test_limits.py benchmarks/test_peers.py --bench-run benchmarks/results/peers.json

bench-twin: $(VENV)/.bench  ## train the int8 network that bench-digits compares with (once; minutes)
	$(BIN)/python benchmarks/digits_twin.py $(if $(MNIST),--data $(MNIST))

bench-digits: $(VENV)/.bench  ## the example against its int8 twin in LiteRT; writes benchmarks/results/digits.md
	$(BENCH) -s benchmarks/test_digits.py --bench-own-report

bench-resnet: $(VENV)/.bench  ## accuracy and time of ResNet-8 at 32, 8 and 1 bits; writes benchmarks/results/resnet8.md
	$(BENCH) -s benchmarks/test_resnet8.py --bench-own-report

bench-few-bits: $(VENV)/.bench  ## layers with weights of 4 and 2 bits beside int8; writes benchmarks/results/few_bits.md
	$(BENCH) -s benchmarks/test_few_bits.py --bench-own-report

check-predictions: $(VENV)/.bench  ## hold predicted latencies of this machine against measured ones; writes benchmarks/results/prediction.md
	$(BIN)/python benchmarks/host_prediction.py $(ARGS)

results: $(VENV)/.bench  ## train what is missing of the results table (days of processor time; resumes), write docs/results.md; DATA=folder of .npz, LANES=2, MIXED=1
	$(BIN)/python benchmarks/train_results.py --lanes $(or $(LANES),1) $(if $(DATA),--data $(DATA)) $(if $(MIXED),--mixed-precision)

widths: $(VENV)/.bench  ## train wider nets of signs until they reach the float figures described (days; resumes), write docs/results.md
	$(BIN)/python benchmarks/train_results.py --widths --lanes $(or $(LANES),1) $(if $(DATA),--data $(DATA)) $(if $(MIXED),--mixed-precision)

plot: benchmarks/results/digits.json $(VENV)/.bench  ## draw docs/results.png from the last benchmark
	$(BIN)/python benchmarks/plot.py

bundled: $(VENV)/.tests  ## convert the example into the file that ships with the package
	$(BIN)/edge convert examples/digits.h5 --bits 1 --format edge -o edge/data/digits.edge

# Kernels compiled ahead of time for boards that need not be named: Raspberry Pi 3, 4 and Zero 2 W (neon), Raspberry Pi 5 (neondot).
BOARDS = neon neondot
LIBRARIES = $(BOARDS:%=edge/data/kernels-%.so)
DECIDES_KERNELS = $(wildcard kernels/*.py) edge/build_standard.py edge/layout.py edge/ops.py edge/tensors.py edge/threads.py

edge/data/kernels-%.so: $(DECIDES_KERNELS) | $(VENV)/.runtime
	$(BIN)/edge build --target $* -o $@

kernels: $(LIBRARIES)  ## compile the kernels of common networks for Raspberry Pis (needs a linker for aarch64; minutes)

wheel: $(LIBRARIES)  ## a wheel with these kernels, in dist/
	rm -rf build && $(PIP) wheel --no-deps -w dist .
	$(BIN)/python -c "import sys, zipfile; have = zipfile.ZipFile(sys.argv[1]).namelist(); sys.exit([n for n in sys.argv[2:] if n not in have] or 0)" \
		dist/edge_lowbit-*.whl $(LIBRARIES)

bench-device: $(VENV)/.bench  ## start, memory and bytes with kernels compiled ahead of time; writes benchmarks/results/device-start.md
	$(BIN)/python benchmarks/device_start.py

docs: $(VENV)/.tests  ## write the pages of docs/ that are made from the code
	$(BIN)/python docs/generate.py

lint: $(VENV)/.tests  ## formatting, style and types
	$(BIN)/ruff check .
	# The folders import as edge.kernels and so on only once installed, so types are checked on an installed copy.
	rm -rf build && $(PIP) install --no-deps --target build/installed .
	cd build/installed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p edge

clean:  ## remove virtual environments and caches
	rm -rf $(VENV) .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
