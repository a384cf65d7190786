"""The scripts and the page that every bundle holds; `edge deploy` runs the same ones over ssh."""

from __future__ import annotations

_HEAD = """#!/bin/sh
# Everything stays in the folder of this script.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
"""

ENVIRONMENT = """# Read by the other scripts. $python: with the packages that install.sh put here, else the system's.
python=python3
if [ -e "$here/venv/bin/python" ]; then
    python="$here/venv/bin/python"
fi
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
EDGE_CACHE="${EDGE_CACHE:-$here/cache}"
EDGE_MODEL="${EDGE_MODEL:-$here/model.edge}"
if [ -f "$here/kernels.so" ]; then
    EDGE_KERNELS="${EDGE_KERNELS:-$here/kernels.so}"
    export EDGE_KERNELS
fi
# All files of a bundle have the same time, by which Python tells whether compiled code is stale: install.sh compiles by content instead.
PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH EDGE_CACHE EDGE_MODEL PYTHONDONTWRITEBYTECODE
"""

INSTALL = _HEAD + """
wanted=requirements.txt
option=
case "${1:-}" in
"") ;;
--system-site-packages) wanted=requirements-system.txt option=$1 ;;
*) echo "usage: install.sh [--system-site-packages]" >&2; exit 2 ;;
esac

fail() {
    rm -rf "$here/venv"
    echo "install.sh: $1" >&2
    exit 1
}

make_venv() {
    python3 -m venv $option "$@" "$here/venv" ||
        fail "a virtual environment cannot be made; run: sudo apt install python3-venv, and see that the disk is not full"
}

install_packages() {
    "$here/venv/bin/python" "$@" --quiet --no-cache-dir --disable-pip-version-check --no-input \\
        --root-user-action ignore -r "$here/$wanted" || fail "the packages of $wanted cannot be installed; see the lines above"
}

command -v python3 >/dev/null || fail "python3 is missing; run: sudo apt install python3 python3-venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed, and this is $(python3 -V 2>&1); install Raspberry Pi OS bookworm or newer"

# What was installed is noted beside it, so that a second run, or an update with the same packages, has nothing to do.
key="$(python3 -V) $option $(cat "$here/$wanted")"
if [ "$(cat "$here/venv/installed" 2>/dev/null || true)" != "$key" ]; then
    rm -rf "$here/venv"
    pip=
    for wheel in "$here"/wheels/pip-*.whl; do
        [ ! -f "$wheel" ] || pip=$wheel/pip
    done
    if [ -n "$pip" ]; then
        make_venv --without-pip
        install_packages "$pip" install --no-index --find-links "$here/wheels"
    else
        make_venv
        install_packages -m pip install --only-binary :all:
        # Nothing else is going to be installed there. By name: pip itself might uninstall what it finds elsewhere.
        for part in pip setuptools pkg_resources _distutils_hack distutils-precedence.pth; do
            rm -rf "$here"/venv/lib/python3*/site-packages/"$part" "$here"/venv/lib/python3*/site-packages/"$part"-*.dist-info
        done
    fi
    printf '%s' "$key" >"$here/venv/installed"
fi
. "$here/environment.sh"
"$python" -m compileall -q --invalidation-mode checked-hash "$here/edge"
exec "$here/run.sh"
"""

RUN = _HEAD + """
. "$here/environment.sh"
if [ "$#" -eq 0 ]; then
    exec "$python" -P -m edge.known_answer "$here"
fi
exec "$here/edge.sh" run -m "$EDGE_MODEL" "$@"
"""

EDGE = _HEAD + """
. "$here/environment.sh"
exec "$python" -P -c 'from edge.cli import main; main()' "$@"
"""

README = """# {name}

A model with all that runs it on a {title}.

    ./install.sh              once: makes ./venv and installs requirements.txt there, then runs the check below
    ./run.sh                  checks that {picture} gives the known answer: {answer}
    ./run.sh photo.jpg ...    classifies pictures
    ./run.sh --watch DIR      classifies the pictures that appear in a folder
    ./run.sh --camera         classifies stills of the camera
    ./edge.sh doctor          says what is wrong, where something is
    ./edge.sh verify --self model.edge    repeats the model's certificate, where it was signed off

It needs 64-bit Linux with Python 3.11 or newer (`sudo apt install python3-venv` on Raspberry Pi OS). {packages}
`./install.sh --system-site-packages` takes numpy and pillow of the system where they are new enough.

{kernels} Nothing outside this folder is written. To remove everything, delete the folder.

`edge/` holds the sources of edge, under the Apache License 2.0.
"""

WITH_INDEX = "install.sh takes packages from the package index."
WITH_WHEELS = "The packages are in ./wheels; no network is needed."
COMPILED = "The model's kernels are in kernels.so, compiled for this device: it starts at once and needs no compiler."
COMPILED_THERE = "The first run compiles the model's kernels for the processor it finds, in some seconds, and keeps them in ./cache."
