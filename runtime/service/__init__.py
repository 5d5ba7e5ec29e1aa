"""Running for months unattended: systemd, health checks, log lines."""
