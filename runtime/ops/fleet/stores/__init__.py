"""Places where bundles are stored: a folder, a web server, an OCI registry."""
