# peft_edu: `make lab` to learn, `make test` to check. Windows, or no make: README.md has the plain commands.

TORCH_INDEX ?= https://download.pytorch.org/whl/cpu# empty: PyPI's own torch, with CUDA on Linux
export TORCH_INDEX

PYTHON := .venv/bin/python
ifeq ($(strip $(PYTHON)),)
$(error PYTHON is empty: leave it out, or give the path of a Python in which the packages are)
endif
PINS := pyproject.toml constraints.txt tools/install.sh

.PHONY: help lab real test lint notebooks data pretrain study release grade clean

help:
	@echo "make lab        open your copies of the lessons in JupyterLab (the first time installs about 2 GB into .venv)"
	@echo "                WORKBOOK=FOLDER: where they lie, if not in workbook"
	@echo "make real       get the real models (180 MB, once; make lab and make test try it too)"
	@echo "make test       check: style, unit tests, the core of every lesson, the browser (ALL=1: everything, an hour)"
	@echo "make lint       style alone"
	@echo "make release    students' copies of the exercises, as a zip (notebooks/exercises/README.md)"
	@echo "make grade SUBMISSIONS=FOLDER EXERCISE=07_lora   grade what they hand in"
	@echo "                GRADEBOOK=FILE: what Canvas or Moodle exported; SAME_NUMBERS=1: one set of numbers for all"
	@echo "make clean      remove .venv and everything else that was made here, not your workbook"
	@echo "make notebooks  run all lessons and save them with their outputs"
	@echo "make data       make the corpus and the tasks again, byte for byte"
	@echo "make pretrain   make the small models again (hours)"
	@echo "make study      run the sweeps that the lessons plot (hours)"

.venv/.lab: $(PINS)
	@sh tools/install.sh . $@

.venv/.test: .venv/.lab
	@sh tools/install.sh ".[test]" $@

real: .venv/.lab
	@$(PYTHON) -m peft_edu_app real

lab: .venv/.lab
	@$(PYTHON) -m peft_edu_app real || true
	@$(PYTHON) -m peft_edu_app lab

test: lint
	@$(PYTHON) -m peft_edu_app real || true
	$(PYTHON) -m pytest --numprocesses 2 --no-loadscope-reorder $(if $(ALL),--all)

lint: .venv/.test
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

.venv/.classroom: .venv/.lab
	@sh tools/install.sh ".[classroom]" $@

release: .venv/.classroom
	@$(PYTHON) -m peft_edu_app release $(EXERCISE)

grade: .venv/.classroom
	@$(PYTHON) -m peft_edu_app grade $(if $(SAME_NUMBERS),--same-numbers) $(if $(GRADEBOOK),--gradebook "$(GRADEBOOK)") "$(SUBMISSIONS)" "$(EXERCISE)"

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache peft_edu.egg-info
	find peft_edu peft_edu_app data tests tools benchmarks notebooks -name __pycache__ -prune -exec rm -rf {} +

notebooks: .venv/.lab
	$(PYTHON) tools/execute_notebooks.py

data pretrain: .venv/.lab
	$(PYTHON) -m data.world $@

study: .venv/.lab
	$(PYTHON) -m peft_edu.lab.study.sweep
	$(PYTHON) -m peft_edu.lab.study.new_facts
	$(PYTHON) -m peft_edu.lab.study.brief
