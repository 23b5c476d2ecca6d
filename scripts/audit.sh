#!/usr/bin/env bash
# Known vulnerabilities of everything in constraints.txt: what pip-audit finds in the Python advisory database.
#
#   scripts/audit.sh [FLAGS OF PIP-AUDIT]
#
# pip-audit gets an environment of its own (.venv-audit). Exit code 0 only where every package was looked up and none has a
# known vulnerability: one that the database could not be asked about fails the audit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${SOFTPROMPT_AUDIT_VENV:-.venv-audit}"
SOFTPROMPT_VENV="$VENV"
. scripts/venv.sh
[ -x "$VENV/bin/pip-audit" ] || { make_venv; install_part audit; }
list="$(mktemp)"
trap 'rm -f "$list"' EXIT
grep -oE '^[A-Za-z0-9][A-Za-z0-9._-]*==[^ ;\]+' constraints.txt | sort -u >"$list"
"$VENV/bin/pip-audit" --disable-pip --no-deps --requirement "$list" --strict --progress-spinner off "$@"
