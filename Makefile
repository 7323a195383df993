# make demo: fold the simulated towel with the shipped policy.   make test: lint and tests.
# Both set up everything they need first. `make help` lists the rest.
MODE ?=
BAG ?=
POLICY ?=
SEED ?= 0
VIEW ?=
EPISODES ?= 500
TESTS ?=
SECONDS ?=
MINUTES ?=
PYTHONS ?=
NUMPYS ?=
MATRIX ?=
PEERS ?=
NAMES ?=
PARALLEL := -n 2 --dist worksteal
export PYTHON TORCH ROS BAG POLICY PYTHONS NUMPYS MATRIX TESTS

ifeq ($(origin BUNDLE),command line)
$(error BUNDLE is now called POLICY: make demo POLICY=$(BUNDLE))
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo data test test-fast fuzz ci soak coverage matrix interop ray benchmark-libero benchmark-robotwin lint docs pictures wheels lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

setup: ## environment and workspace; nothing to do when they are there. PYTHON= TORCH= ROS= are kept for later calls
	@scripts/setup.sh

demo: setup ## fold the simulated towel, or replay a recording, and write a report. MODE=sim|replay BAG= POLICY= SEED= VIEW=1
	$(if $(VIEW),@.venv/bin/python -I -c 'import rerun' 2>/dev/null || PIP_USER=0 .venv/bin/python -I -m pip install -q --no-deps -r requirements-view.txt)
	@./fastwam demo $(if $(MODE),--mode $(MODE)) $(if $(BAG),--bag "$$BAG") $(if $(POLICY),--policy "$$POLICY") --seed $(SEED) $(if $(VIEW),--view)

data: setup ## episodes of the scripted expert as a LeRobot dataset in data/towel. EPISODES=500
	@./fastwam collect data/towel --episodes $(EPISODES)

test: setup lint ## lint, and all tests but the slow ones; what fails, once more alone. TESTS="path or pytest options" for some
	@$(if $(TESTS),bash -c '. scripts/env.sh && exec .venv/bin/pytest "$$@"' pytest $(TESTS),scripts/tests.sh $(PARALLEL) -m "not slow")

test-fast: setup ## the tests of single parts: no nodes, no training, no episodes, no servers, no generated histories
	@bash -c '. scripts/env.sh && exec .venv/bin/pytest $(PARALLEL) -m "not (nodes or training or integration or fuzz or slow)"'

fuzz: setup ## generated histories against the rules of docs/concepts/safety.md: 1,000,000 control ticks, or SECONDS= of them. SEED= for the same again
	@bash -c '. scripts/env.sh && OMP_NUM_THREADS=1 exec .venv/bin/python -m src.galaxea_r1lite_bridge.test.fuzz \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(filter command,$(firstword $(origin SEED))),--seed $(SEED))'

ci: test docs ## all that must hold before a change lands: lint, all tests, the documentation, and make ray
	@scripts/tests.sh $(PARALLEL) -m "slow and not alone"
	@scripts/tests.sh -m "slow and alone"
	@scripts/ray.sh

soak: setup ## simulated trials through the nodes for 10 minutes, or MINUTES=: does what they take of the machine grow?
	@./fastwam soak $(if $(MINUTES),--minutes $(MINUTES))

coverage: setup ## which lines of the parts without ROS the tests of `make test` run
	@bash -c '. scripts/env.sh && exec .venv/bin/pytest $(PARALLEL) -m "not slow" --cov'

matrix: ## the tests on each Python 3.10 to 3.13 here, with NumPy 1.26 and 2; hours. PYTHONS="3.11" NUMPYS="1.26" TESTS= MATRIX=
	@scripts/matrix.sh

interop: setup ## clients and servers of other projects against ours, each in an environment of its own. PEERS="openpi xpolicylab lerobot"
	@PEERS="$(PEERS)" scripts/interop.sh

ray: setup ## a Ray cluster of two nodes on this machine: a node and a driver are killed, its cost is measured; in .venv-ray
	@scripts/ray.sh

benchmark-libero: setup ## the environment of LIBERO's simulator, for ./fastwam benchmark libero: 2 GB in .venv-benchmark
	@scripts/benchmark.sh libero

benchmark-robotwin: setup ## the same of RoboTwin's, for ./fastwam benchmark robotwin, with Python 3.10 or 3.11
	@scripts/benchmark.sh robotwin

lint: setup ## ruff, spelling, Dockerfiles, mypy, and the layers of imports
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/hadolint docker/*Dockerfile
	@git ls-files -z '*.md' '*.py' '*.yaml' '*.sh' '*.msg' '*.srv' '*.action' '*.toml' '*.cff' Makefile | xargs -0 .venv/bin/codespell
	@bash -c '. scripts/env.sh && .venv/bin/mypy && exec .venv/bin/lint-imports --no-cache'

docs: setup ## the documentation as a site in output/docs, its reference from the sources; broken links are errors
	@scripts/docs.sh

pictures: setup ## the pictures of the documentation, taken again in docs/images. NAMES="fold operate"
	@bash -c '. scripts/env.sh && exec python scripts/pictures.py $(NAMES)'

wheels: ## sdist and wheel of each Python package in output/wheels
	@scripts/wheels.sh

lock: setup ## resolve requirements.in into requirements.txt, and for NumPy 1.26 into requirements-numpy1.txt, with hashes, without torch
	@.venv/bin/python -I -m pip install --quiet uv
	@for name in requirements requirements-numpy1; do echo 'torch; python_version < "3"' | .venv/bin/uv pip compile --quiet \
	  --universal --python-version 3.10 --no-annotate --no-header --generate-hashes --override - $$name.in -o $$name.txt || exit; done

clean: ## remove the environments and the built workspace; output/ stays
	rm -rf .venv .venv.before .setup .venv-docs .venv-interop .venv-ray .venv-benchmark build install log
