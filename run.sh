#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sets up what is missing (system packages, .venv, Python packages, ROS 2 messages), then starts recon3d or the tests.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv=$root/.venv
state=$venv/setup-state # "running", "failed", or the fingerprint of the tree that was set up, and " learned" with torch
log=$venv/setup.log
learned=""

usage() {
    cat <<'TEXT'
Usage: ./run.sh WORD [ARGUMENTS]

  demo             fly a synthetic drone through the ROS 2 nodes; writes trajectory, cloud, mesh and a report
  test             ruff, mypy and pytest; arguments go to pytest, for example  ./run.sh test -k mesher
                   --slow (or RECON3D_SLOW=1) adds the tests that take long
  setup            only set up; --learned adds torch for the learned engines (as test does): 0.3 to 3 GB
  run, slam, reconstructor, mesher, replay, eval, doctor, params ...
                   any other word is one of the recon3d command; ./run.sh run --help tells its flags

The first start sets up everything in .venv: about two minutes. Later starts take no time, a changed tree is set up again.
Needs Python 3.10 to 3.13 (PYTHON=/path/to/python3.12 ./run.sh ... chooses one) and no ROS installation.
TEXT
}

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 2
}

# The packages in .venv bring their own ROS 2: libraries of another one must not be found first.
leave_ros_out() {
    if [ -n "${AMENT_PREFIX_PATH:-}${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ]; then
        [ -z "${AMENT_PREFIX_PATH:-}" ] || say "note: the sourced ROS environment (${ROS_DISTRO:-$AMENT_PREFIX_PATH}) is left out here"
        unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH \
            ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION _ROS_WHEELS_BOOTSTRAP_COMPLETE
    fi
    case ${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp} in
    rmw_fastrtps_cpp) ;;
    *)
        say "note: RMW_IMPLEMENTATION=$RMW_IMPLEMENTATION is left out here, only rmw_fastrtps_cpp is in .venv"
        unset RMW_IMPLEMENTATION
        ;;
    esac
}

# A demo or a test must neither hear nor disturb other robots, nor another run on this machine.
stay_alone() {
    export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
    export ROS_DOMAIN_ID="${ROS_DOMAIN_ID:-$(($$ % 101 + 1))}"
}

find_python() {
    for python in ${PYTHON:-python3 python3.12 python3.13 python3.11 python3.10}; do
        if "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    fail "no Python 3.10 to 3.13 found (${PYTHON:-$(python3 --version 2>&1)}): install one, for example" \
        "sudo apt-get install python3 , or name it:  PYTHON=/path/to/python3.12 ./run.sh ..."
}

fingerprint() {
    (
        cd "$root"
        echo "$root" "$("$python" --version)"
        cat pyproject.toml setup.py CMakeLists.txt package.xml config/constraints.txt
        find msg -type f | LC_ALL=C sort | xargs cat
    ) | sha256sum | cut -d' ' -f1
}

set_up_already() {
    case "$(cat "$state" 2>/dev/null)" in
    "$(fingerprint) learned") true ;;
    "$(fingerprint)") [ -z "$learned" ] ;;
    *) false ;;
    esac
}

# What a compiler and a virtual environment need, as Debian and Ubuntu call it.
missing_packages() {
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "python$version-venv"
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || echo "python$version-dev"
    command -v c++ >/dev/null || echo "g++"
}

install_system_packages() {
    packages=$(missing_packages | tr '\n' ' ')
    if [ -z "$packages" ]; then
        say "[1/4] system packages: nothing is missing"
    elif ! command -v apt-get >/dev/null; then
        fail "missing: a C++ compiler, or the Python headers and venv module; on Debian they are called  $packages"
    elif [ "$(id -u)" -ne 0 ]; then
        fail "system packages are missing; install them and start again:  sudo apt-get install -y $packages"
    else
        say "[1/4] system packages: installing $packages"
        apt-get update >>"$log" 2>&1 || true # where it matters, the next line fails
        # shellcheck disable=SC2086
        logged env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
    fi
}

# Run a command with its output in the log; show the end of the log where it fails.
logged() {
    printf '\n$ %s\n' "$*" >>"$log"
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        say "failed: $*"
        tail -n 25 "$log" >&2
        say "set-up stopped; the whole log is $log . Start again to go on."
        echo failed >"$state"
        exit 1
    fi
}

# A set-up that was interrupted is thrown away, since pip may have been in the middle of a package; its cache has the downloads.
prepare_venv() {
    if [ "$(cat "$state" 2>/dev/null)" = running ]; then rm -rf "$venv"; fi
    if [ -x "$venv/bin/python" ] && [ "$("$venv/bin/python" --version)" != "$("$python" --version)" ]; then
        [ -f "$state" ] || fail "$venv has another Python: remove it, or start with  PYTHON=$venv/bin/python"
        rm -rf "$venv"
    fi
    mkdir -p "$venv"
    : >"$log"
}

set_up() {
    cd "$root"
    prepare_venv
    install_system_packages
    case "$(cat "$state" 2>/dev/null)" in *learned) learned=yes ;; esac # what is there is kept up to date
    echo running >"$state"
    say "[2/4] virtual environment .venv ($("$python" --version))"
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || logged "$python" -m venv "$venv"
    say "[3/4] Python packages and ROS 2 messages: a minute or two, 1.2 GB on disk (log: .venv/setup.log)"
    logged "$venv/bin/python" -m pip install --disable-pip-version-check -c config/constraints.txt -e ".[ros,${learned:+learned,}loops,dev]"
    say "[4/4] check"
    logged "$venv/bin/python" -c 'import rclpy, recon3d_ros.ros.messages'
    echo "$(fingerprint)${learned:+ learned}" >"$state"
}

# One at a time, where several are started at once.
ensure_set_up() {
    python=$(find_python)
    if ! set_up_already; then
        (
            if command -v flock >/dev/null; then flock 9; fi
            if ! set_up_already; then set_up; fi
        ) 9<"$root"
    fi
}

run_tests() {
    cd "$root"
    failed=""
    "$venv/bin/python" -m ruff check . || failed="ruff"
    "$venv/bin/python" -m mypy || failed="$failed mypy"
    "$venv/bin/python" -m pytest -n auto --maxprocesses 4 "$@" || failed="$failed pytest"
    [ -z "$failed" ] || {
        say "failed: $failed"
        exit 1
    }
}

case ${1:-} in
"" | -h | --help | help)
    usage
    exit 0
    ;;
esac
word=$1
case "$word ${2:-}" in
"test "* | "setup --learned") learned=yes ;;
esac
leave_ros_out
ensure_set_up
case $word in
setup) ;;
test)
    shift
    stay_alone
    run_tests "$@"
    ;;
*)
    if [ "$word" = demo ]; then stay_alone; fi
    exec "$venv/bin/recon3d" "$@"
    ;;
esac
