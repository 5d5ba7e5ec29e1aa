"""Certificates that a test signs itself."""

from __future__ import annotations

import subprocess


def make_authority(openssl, folder):
    def run(*words):
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "stranger"):
        run("req", "-x509", *ec, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    for name, alternative in (("server", "DNS:localhost"), ("client", "DNS:camera1")):
        run("req", *ec, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "extensions").write_text(f"subjectAltName={alternative}\n")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "extensions", "-out", f"{name}.pem")  # fmt: skip
