#!/usr/bin/env bash
# Install this checkout and everything it needs, torch first (another build of it would otherwise come as a dependency).
#
#   VENV=.venv  PYTHON=python3  TORCH=torch==2.13.0  EXTRAS=dev  scripts/install.sh
#
# VENV     virtual environment, made when it is not there; empty: install into PYTHON itself (a container)
# PYTHON   the interpreter to make it with; 3.11 or newer
# TORCH    what pip installs first: a version, or a wheel's path
# EXTRAS   dev, mpi, or both as dev,mpi; empty: none
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
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then # not there, half made, or its interpreter has gone
        "$python" -m venv --clear "$venv" ||
            refuse "'$python' cannot make a virtual environment; install its venv module (python3-venv on Debian and Ubuntu)."
    fi
    python=$venv/bin/python
fi

install=("$python" -m pip install --disable-pip-version-check --quiet)
"${install[@]}" "$torch"
"${install[@]}" --editable ".${extras:+[$extras]}"
