# Every target makes the environment first if it is not there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Other people's tools, which training is measured against, in an environment of their own.
PEERS       := .venv-peers
PEERS_READY := $(PEERS)/.ready
SERVERS       := .venv-servers
SERVERS_READY := $(SERVERS)/.ready
# OpenVINO's own writer of texts, which writing is measured against.
GENAI       := .venv-genai
GENAI_READY := $(GENAI)/.ready
# TensorFlow and LiteRT's interpreter, which some exports are written and read by, in an environment of their own.
TENSORFLOW       := .venv-tf
TENSORFLOW_READY := $(TENSORFLOW)/.ready
export THRIFTY_TENSORFLOW_PYTHON ?= $(if $(wildcard $(TENSORFLOW_READY)),$(CURDIR)/$(TENSORFLOW)/bin/python)

# Most tests are one thread long: as many processes as there are cores, up to four, run them side by side. Threads of
# what they start that wait must not keep cores from the others.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist worksteal

.PHONY: install demo test quick check format bench bench-plan bench-gpu peers bench-train bench-train-gpu bench-data bench-deploy bench-tune servers genai tensorflow docs clean

install: $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(SIDE_BY_SIDE) --durations=40 --durations-min=4

quick: $(READY)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not browser and not gpu" -x --hypothesis-profile quick

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_floors.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m benchmarks.main_jobs
	$(MAKE) bench-plan

# Predictions against real steps here, beside other tools' estimators, and against published tables.
bench-plan: $(READY)
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[bench]' --constraint constraints.txt
	$(BIN)/python -W ignore -m benchmarks.plan
	$(BIN)/python -m benchmarks.published

# Memory and time of this machine's GPU, predicted beside real steps; then what moves gain there, in some seven minutes.
bench-gpu: $(READY)
	$(BIN)/python -W ignore -m benchmarks.gpu
	$(BIN)/python -W ignore -m benchmarks.gpu_moves $(QUICK)

# Training against other people's tools, on real data of ../shared/data; hours in all. In minutes: make bench-train QUICK=--quick
TRAINING := sst2 cifar shakespeare gpt2 bert_step overhead budget checkpoints
bench-train: $(READY) $(PEERS_READY)
	code=0; for each in $(TRAINING); do $(BIN)/python -W ignore -m benchmarks.$$each $(QUICK) || code=1; done; exit $$code

# The same of large models on one NVIDIA GPU, in under ten minutes.
bench-train-gpu: $(READY)
	$(BIN)/python -W ignore -m benchmarks.gpu_train $(QUICK)

# What is reached on the data sets of ../shared/data, and how fast data is prepared and read; an hour or two.
SUBJECTS := mnist cifar sst2 douban fsdd digits adult california shakespeare
bench-data: $(READY) $(PEERS_READY)
	code=0; for each in $(SUBJECTS); do $(BIN)/python -W ignore -m benchmarks.accuracy $$each $(QUICK) || code=1; done; \
	  for each in checkpoint_accuracy prepare read larger; do $(BIN)/python -W ignore -m benchmarks.$$each $(QUICK) || code=1; done; exit $$code

# What answering costs: smaller models under a guard, other runtimes, other servers, writing many texts, overload; hours.
DEPLOYING := export generate cold_start overload compress infer serve moves
bench-deploy: $(READY) $(PEERS_READY) $(SERVERS_READY) $(GENAI_READY) $(TENSORFLOW_READY)
	code=0; for each in $(DEPLOYING); do $(BIN)/python -W ignore -m benchmarks.$$each $(QUICK) || code=1; done; exit $$code

# Tuning beside Optuna alone and Ray Tune, on four sets of ../shared/data, and what a curve of small runs foretells; hours. In minutes: make bench-tune QUICK=--quick
bench-tune: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[raytune]' --constraint constraints.txt
	$(BIN)/python -W ignore -m benchmarks.tune $(QUICK)
	$(BIN)/python -W ignore -m benchmarks.scale $(QUICK)

peers: $(PEERS_READY)

# Other people's servers, each in an environment of its own.
servers: $(SERVERS_READY)

genai: $(GENAI_READY)

# TensorFlow in an environment of its own; without it tests of what it reads are skipped.
tensorflow: $(TENSORFLOW_READY)

# The site of docs/, in site/: it opens without a server, and asks nobody for anything.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) $(PEERS) $(SERVERS) $(GENAI) $(TENSORFLOW) runs examples/data site

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[onnx,openvino,grpc,otel,ray,ui,postgres,tensorboard,mlflow,wandb,examples,hf,peft,docs,dev]' --constraint constraints.txt
	@touch $(READY)

$(PEERS_READY): benchmarks/peers/constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet torch numpy transformers accelerate lightning keras datasets soundfile pillow --constraint benchmarks/peers/constraints.txt
	@touch $(PEERS_READY)

$(SERVERS_READY): $(wildcard benchmarks/peers/servers/*.txt)
	for each in $(basename $(notdir $^)); do \
	  $(PYTHON) -m venv $(SERVERS)/$$each && \
	  $(SERVERS)/$$each/bin/python -m pip install --quiet --requirement benchmarks/peers/servers/$$each.txt || exit 1; done
	@touch $(SERVERS_READY)

$(GENAI_READY): benchmarks/peers/genai.txt
	$(PYTHON) -m venv $(GENAI)
	$(GENAI)/bin/python -m pip install --quiet --requirement $<
	@touch $(GENAI_READY)

$(TENSORFLOW_READY): constraints.txt
	$(PYTHON) -m venv $(TENSORFLOW)
	$(TENSORFLOW)/bin/python -m pip install --quiet tensorflow-cpu ai-edge-litert --constraint constraints.txt
	@touch $(TENSORFLOW_READY)
