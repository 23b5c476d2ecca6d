# Sourced by ./quickstart and ./check: makes .venv and installs the pinned, hashed dependencies of an extra into it.
# Usage: ensure_venv EXTRA; afterwards $VENV/bin holds the commands. Run from the root of the repository.
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

# A part of constraints.txt ("# == NAME"), or of it the package of a name: only files whose sha256 stands there are installed,
# what must be built is built with what is installed already, and nothing is resolved that the list does not have.
install_part() {
    local list="$VENV/.softprompt-part.txt"
    awk -v part="$1" -v only="${2:-}" '
        /^# == / { in_part = ($3 == part); next }
        /^[A-Za-z0-9]/ { split($1, name, "=="); wanted = (only == "" || name[1] == only) }
        in_part && wanted' constraints.txt >"$list" || fail "constraints.txt could not be read: is the checkout whole?"
    "$VENV/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --no-deps \
        --no-build-isolation ${SOFTPROMPT_TORCH_INDEX:+--extra-index-url "$SOFTPROMPT_TORCH_INDEX"} --requirement "$list" ||
        fail "the dependencies could not be installed (see above): is the package index reachable and the disk not full?"
    rm -f "$list"
}

# torch's CPU build, where an index or folder that pip asks has one of the known hashes; otherwise the usual build comes with
# the rest. Asked for by its own version: pip would not choose it from a folder, whose files show no hash before they are read.
install_cpu_torch() {
    local list="$VENV/.softprompt-part.txt"
    awk '/^# CPU builds/ { on = 1; next } on && /^#   --hash/ { hashes = hashes " " $2; next } { on = 0 }
        /^torch==/ { print $1 "+cpu" hashes; exit }' constraints.txt >"$list"
    "$VENV/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --no-deps \
        ${SOFTPROMPT_TORCH_INDEX:+--extra-index-url "$SOFTPROMPT_TORCH_INDEX"} --requirement "$list" 2>/dev/null ||
        [ -z "${SOFTPROMPT_TORCH_INDEX:-}" ] ||
        echo "$(basename "$0"): $SOFTPROMPT_TORCH_INDEX has no CPU build of torch whose hash is in constraints.txt, so the usual" \
            "build is installed; 'python scripts/lock.py --torch-index URL' adds the hashes of an index you trust." >&2
}

# Whether the torch that was installed is a CUDA build, which asks for packages of its own.
asks_for_cuda() {
    "$VENV/bin/python" -c 'import importlib.metadata as m, sys; sys.exit(not any("nvidia" in r or "cuda" in r for r in m.requires("torch") or []))'
}

# EXTRA is quickstart or dev.
ensure_venv() {
    local extra="$1" stamp wanted
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c 'import pip' 2>/dev/null || make_venv
    stamp="$VENV/.softprompt-$extra"
    wanted="$(cat pyproject.toml constraints.txt | sha256sum) $PWD"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    echo "installing softprompt[$extra] and its pinned, hashed dependencies into $VENV (once; some minutes, torch is large)"
    install_part quickstart setuptools
    install_cpu_torch
    install_part quickstart
    [ "$extra" = quickstart ] || install_part "$extra"
    if asks_for_cuda; then install_part cuda; fi
    "$VENV/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . ||
        fail "softprompt itself could not be installed (see above)."
    printf '%s\n' "$wanted" >"$stamp"
}
