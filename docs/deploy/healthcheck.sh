#!/bin/sh
# Healthy is who keeps writing: kanoclip-run --jsonl - writes a line for each judged frame.
# Usage: healthcheck.sh [PID] [SECONDS]; in the container it is process 1 (so do not use `docker run --init`).
set -eu
pid=${1:-1}
seconds=${2:-5}

written() {
    sed -n 's/^wchar: //p' "/proc/$pid/io"
}

before=$(written)
sleep "$seconds"
test "$(written)" -gt "$before"
