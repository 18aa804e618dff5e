#!/usr/bin/env bash
# Install this checkout and everything that it needs. Torch comes first: pip would otherwise choose another build of it.
#
#   VENV=.venv  PYTHON=python3  TORCH=torch==2.13.0  EXTRAS=dev  scripts/install.sh
#
# VENV     virtual environment, created if it does not exist; empty: install into PYTHON itself (in a container)
# PYTHON   the interpreter to create it with; 3.11 or newer
# TORCH    the torch that pip installs: a version, or the path of a wheel
# EXTRAS   dev, mpi, hub-data, …, as setup.py names them, with commas; empty: none
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV-.venv}
python=${PYTHON:-python3}
torch=${TORCH:-torch==2.13.0}
extras=${EXTRAS-dev}

refuse() {
    echo "error: $1" >&2
    exit 2
}

command -v "$python" >/dev/null || refuse "there is no '$python'; install Python 3.11 or newer, or name one: PYTHON=/path/to/python3."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    refuse "'$python' is $("$python" --version 2>&1), but 3.11 or newer is needed; name one: PYTHON=python3.11."

if [ -n "$venv" ]; then
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then # it is missing, incomplete, or its interpreter is gone
        "$python" -m venv --clear "$venv" ||
            refuse "'$python' cannot make a virtual environment; install its venv module (python3-venv on Debian and Ubuntu)."
    fi
    python=$venv/bin/python
fi

install=("$python" -m pip install --disable-pip-version-check --quiet)
"${install[@]}" "$torch"
"${install[@]}" --editable ".${extras:+[$extras]}"
