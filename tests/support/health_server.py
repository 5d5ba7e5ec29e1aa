"""The health checks alone, as a run without metrics serves them."""

from __future__ import annotations

from kanoclip.runtime.service.http import health_checks, serve_texts


def serve_health(health, address):
    return serve_texts(health_checks(health), address, "health checks")
