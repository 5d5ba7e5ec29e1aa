"""The command, of all its subcommands."""

from __future__ import annotations

import click

from kanoclip.runtime.cli.bundle.boxes import pull, rollback, verify
from kanoclip.runtime.cli.bundle.stores import EPILOG, keygen, list_bundles, push


@click.group(epilog=EPILOG)
def command() -> None:
    """Bring bundles to many boxes: push, pull, list, verify, roll back.

    A store is an OCI registry (oci://HOST/REPOSITORY), a repository of Hugging Face's hub (hf://OWNER/NAME), a folder,
    or any URL that fsspec knows (s3://, gs://, sftp://).
    """


for _subcommand in (keygen, push, pull, list_bundles, verify, rollback):
    command.add_command(_subcommand)
