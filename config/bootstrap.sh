#!/bin/sh
# Make .venv with the pinned packages: "run" (the platform, embedded servers, the agent), "dev" (also tests and linters)
# or "bench" (also the peers that benchmarks compare with).
# Changes nothing outside the checkout. Does nothing when the environment fits already.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "edgeflow: $*" >&2
    exit 1
}

case "${1:-run}" in
run) sets="requirements.txt requirements-embedded.txt agent/requirements.txt" ;;
dev) sets="requirements.txt requirements-embedded.txt agent/requirements.txt requirements-dev.txt" ;;
bench) sets="requirements.txt requirements-embedded.txt agent/requirements.txt requirements-dev.txt bench/requirements.txt" ;;
*) fail "usage: config/bootstrap.sh run|dev|bench" ;;
esac

fits='import sys; sys.exit(sys.version_info < (3, 11))'
python=.venv/bin/python
# shellcheck disable=SC2086  # the names above hold no spaces
wanted=$(cat $sets | cksum)
stamp=".venv/.installed-${1:-run}"

if "$python" -c "$fits" 2>/dev/null && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
if ! "$python" -c "import pip; $fits" 2>/dev/null; then
    for candidate in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c "$fits" 2>/dev/null; then
            system=$candidate
            break
        fi
    done
    [ -n "${system:-}" ] || fail "Python 3.11 or newer is needed: install it, or name it: PYTHON=/path/to/python3 make run"
    echo "edgeflow: making .venv with $("$system" --version)"
    rm -rf .venv
    if "$system" -c "import ensurepip" 2>/dev/null; then
        "$system" -m venv .venv
    else
        # Debian keeps ensurepip in a package of its own; the environment can do without, if a pip comes from elsewhere.
        "$system" -m venv --without-pip .venv
        "$system" -m pip --python "$python" install --quiet --disable-pip-version-check pip 2>/dev/null ||
            "$system" config/launch/pip_wheel.py "$python" ||
            { rm -rf .venv; fail "no pip could be found or downloaded: install the package python3-venv (apt install python3-venv)"; }
    fi
fi

echo "edgeflow: installing the pinned packages into .venv (once; about half a minute)"
set --
for file in $sets; do
    set -- "$@" -r "$file"
done
"$python" -m pip install --quiet --disable-pip-version-check "$@" || fail "the packages could not be installed: see above"
echo "$wanted" >"$stamp"
