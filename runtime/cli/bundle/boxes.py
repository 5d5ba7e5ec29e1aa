"""What a box does: pull a bundle, verify one, go back to the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.cli.bundle.options import (
    check_beside_bundles,
    check_words,
    json_option,
    print_result,
    then_option,
    trust_option,
)
from kanoclip.runtime.cli.options import backend_options, size
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.address import content_address, short
from kanoclip.runtime.system.files.regular import read_small

_PULL_EPILOG = """
Examples:

\b
  kanoclip-bundle pull oci://registry.plant/kanoclip:line3 --trust line.pub --install /var/lib/kanoclip
  kanoclip-bundle pull s3://plant-models/kanoclip:line3 --trust line.pub --install /var/lib/kanoclip \\
      --then 'systemctl restart kanoclip'
  kanoclip-bundle pull /mnt/usb/bundles@sha256:1f0e... --trust line.pub --output line3.kanoclip
"""


@click.command(epilog=_PULL_EPILOG)
@click.argument("url", metavar="URL[:TAG|@sha256:...]")
@trust_option
@click.option("--unsigned", is_flag=True, help="Take it without a signature: whoever can write to the store decides.")
@click.option("--output", type=click.Path(path_type=Path), metavar="NAME.kanoclip", help="Put it into this new folder.")
@click.option(
    "--install",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Make it FOLDER/current.kanoclip, if kanoclip-doctor agrees; those before it stay beside it.",
)
@then_option
@click.option(
    "--keep", type=click.IntRange(min=2), default=3, show_default=True, help="Bundles that --install leaves in FOLDER."
)
@click.option("--again", is_flag=True, help="Install one that failed here before, or that was rolled back.")
@click.option("--older", is_flag=True, help="Install one that was signed before the current one.")
@click.option("--max-size", default="16G", show_default=True, callback=size, help="Refuse a bundle that is larger.")
@backend_options
@json_option
def pull(
    url: str,
    trust: tuple[Path, ...],
    unsigned: bool,
    output: Path | None,
    install: Path | None,
    then: str | None,
    keep: int,
    again: bool,
    older: bool,
    max_size: int,
    backend: str,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Take a bundle out of a store: signed by a key that is trusted, whole, or not at all.

    --backend, --device and --threads say what kanoclip-doctor tries it with: give those of kanoclip-run.
    """
    from kanoclip.runtime.ops.fleet.keys import read_trusted_keys
    from kanoclip.runtime.ops.fleet.pull import fetch, look
    from kanoclip.runtime.ops.fleet.reference import Reference
    from kanoclip.runtime.ops.fleet.stores.store import open_store

    if (output is None) == (install is None):
        raise click.UsageError("Say where to: --output NAME.kanoclip or --install FOLDER.")
    if install is None and (then is not None or again or older):
        raise click.UsageError("--then, --again and --older go with --install.")
    if not trust and not unsigned:
        raise click.UsageError("Say whom to trust: --trust FILE.pub (of kanoclip-bundle keygen), or --unsigned.")
    check_words(then)
    if output is not None and (output.exists() or output.is_symlink()):
        raise FleetError(f"{output} is there already: name another folder")
    for place in (output, install):
        if place is not None:
            check_beside_bundles(place)
    reference = Reference.parse(url)
    keys = read_trusted_keys(trust)
    offer = look(open_store(reference.url), reference, keys, unsigned=unsigned)
    signer = "nobody" if offer.key is None else offer.key.shown
    result: dict[str, Any] = {
        "address": offer.address,
        "name": offer.manifest.name,
        "signed_by": offer.key and offer.key.id,
    }
    with builds_shown(Console(stderr=True)) as report:
        if output is not None:
            fetched = fetch(offer, output, report, max_size)
            print_result(
                result | {"folder": str(output), "fetched_bytes": fetched},
                as_json,
                f"{output} is {offer.address}, signed by {signer}",
            )
            return
        assert install is not None
        from kanoclip.runtime.ops.fleet.examine import run_command, run_doctor
        from kanoclip.runtime.ops.fleet.installation import Installation

        options = ["--backend", backend, "--device", device]
        options += [] if threads is None else ["--threads", str(threads)]

        def examine(bundle: Path) -> None:
            report("kanoclip-doctor", 1.0)
            run_doctor(bundle, options)

        installation = Installation(install)
        outcome = installation.install(
            offer,
            examine,
            lambda: None if then is None else run_command(then),
            report,
            limit=max_size,
            again=again,
            older=older,
            keep=keep,
        )
    result |= {"folder": str(installation.versions.link), "changed": outcome.changed, "fetched_bytes": outcome.fetched}
    what = (
        f"is {outcome.address} now, signed by {signer}; {outcome.fetched} bytes fetched"
        if outcome.changed
        else (f"is {outcome.address} already")
    )
    print_result(result, as_json, f"{installation.versions.link} {what}")


@click.command(epilog="Example: kanoclip-bundle verify /var/lib/kanoclip/current.kanoclip --trust line.pub")
@click.argument("bundle", type=click.Path(path_type=Path))
@trust_option
@json_option
def verify(bundle: Path, trust: tuple[Path, ...], as_json: bool) -> None:
    """Check every file of BUNDLE against its manifest, and with --trust who signed it."""
    from kanoclip.runtime.ops.fleet.keys import read_trusted_keys
    from kanoclip.runtime.ops.fleet.pull import SIGNATURE_NAME
    from kanoclip.runtime.ops.fleet.statement import ENVELOPE_LIMIT, verified

    opened = Bundle.open(bundle)
    address = content_address((opened.root / MANIFEST_NAME).read_bytes())
    key = None
    if keys := read_trusted_keys(trust):
        try:
            statement, key = verified(read_small(opened.root / SIGNATURE_NAME, ENVELOPE_LIMIT), keys)
        except OSError:
            raise FleetError(f"{bundle} has no {SIGNATURE_NAME}: it was not pulled, or nobody signed it") from None
        except FleetError as error:
            raise FleetError(f"{bundle} is refused: {error}") from error
        statement.check_times()
        if statement.bundle != address:
            raise FleetError(f"{bundle} is not what was signed ({short(statement.bundle)}): it was changed")
    signed = "" if key is None else f", signed by {key.shown}"
    result = {"address": address, "name": opened.manifest.name, "signed_by": None if key is None else key.id}
    print_result(result, as_json, f"{bundle} is {address}, every file as its manifest says{signed}")


@click.command(epilog="Example: kanoclip-bundle rollback /var/lib/kanoclip --then 'systemctl restart kanoclip'")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--to", metavar="sha256:...", help="Go to this one, or what begins so. Default: the one before.")
@then_option
@json_option
def rollback(folder: Path, to: str | None, then: str | None, as_json: bool) -> None:
    """Make the bundle before the current one the current one; pull takes the other again with --again only."""
    from kanoclip.runtime.ops.fleet.examine import run_command
    from kanoclip.runtime.ops.fleet.installation import Installation

    check_words(then)
    if not (folder / "versions").is_dir():
        raise FleetError(f"{folder} is no folder that kanoclip-bundle pull --install filled")
    installation = Installation(folder)
    address = installation.roll_back(to, lambda: None if then is None else run_command(then))
    print_result(
        {"folder": str(installation.versions.link), "address": address},
        as_json,
        f"{installation.versions.link} is {address} now",
    )
