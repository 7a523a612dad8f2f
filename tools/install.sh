#!/bin/sh
# Make .venv with the tested versions of everything: `sh tools/install.sh WHAT STAMP`, from the repository root.
# WHAT is `.` for the lessons or `.[test]`; STAMP is the file by which make knows that it is done.
set -eu

fail() {
    echo "peft_edu: $1" >&2
    exit 1
}

suitable() {  # a name can be on the PATH and not run (pyenv), or be too old, or too new for this torch
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

if ! suitable .venv/bin/python; then
    for python in ${PYTHON3:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        suitable "$python" && break
        python=
    done
    [ -n "$python" ] || fail "Python 3.11 to 3.14 is needed and was not found; get one from https://www.python.org."
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python cannot make virtual environments; on Debian and Ubuntu 'apt install python3-venv' mends that."
    case "${NEEDED_MB:=2500}" in *[!0-9]*) fail "NEEDED_MB is '$NEEDED_MB', but must be a number of megabytes." ;; esac
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge "$NEEDED_MB" ] ||
        fail "$NEEDED_MB MB of free disk are needed in $(pwd) and $free MB are free."
    echo "Installing PyTorch, Transformers and JupyterLab into .venv: about 2 GB, a few minutes, only this once."
    rm -rf .venv
    "$python" -m venv .venv
fi

quiet=
[ "$1" = . ] || quiet=--quiet  # what comes on top is little

pip() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install $quiet --constraint constraints.txt "$@" ||
        fail "pip could not install the packages: see the lines above, mend it (network? disk?) and run make again."
}

# PyPI's torch for Linux carries 3 GB of CUDA that a laptop without a GPU cannot use.
if [ "$(uname -s)" = Linux ] && [ -n "${TORCH_INDEX:-}" ] && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    pip --retries 1 --extra-index-url "$TORCH_INDEX" torch
fi
pip --editable "$1"
touch "$2"
