#!/bin/sh
# Checks kanoclip-run's health: exit code 0 means healthy. Errors go to standard output, for `docker inspect`.
# Usage: healthcheck.sh [healthz|readyz]; $KANOCLIP_HEALTH is the address that kanoclip-run --health was given.
# healthz: the process works, a camera may be away. readyz: frames come and are scored.
set -eu
exec "${PYTHON:-python3}" -I -S - "${KANOCLIP_HEALTH:?is not set: kanoclip-run --health HOST:PORT}" "${1:-healthz}" <<'CHECK'
import http.client
import sys

address, check = sys.argv[1:]
host, _, port = address.rpartition(":")
host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host).strip("[]")
try:
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    connection.request("GET", "/" + check)
    answer = connection.getresponse()
    print(answer.read(4096).decode(errors="replace").strip())
except (OSError, ValueError, http.client.HTTPException) as error:
    sys.exit(f"{address}: {error}")
sys.exit(answer.status != 200)
CHECK
