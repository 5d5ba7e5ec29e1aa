"""`kanoclip-bundle`: from one machine to many, signed, and back."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.cli.options import backend_options, size
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.address import content_address, short
from kanoclip.runtime.system.files.regular import read_small

_EPILOG = """
Examples:

\b
  kanoclip-bundle keygen line                                        # line.key for you, line.pub for the boxes
  kanoclip-bundle push line3.kanoclip oci://registry.plant/kanoclip --tag line3 --key line.key
  kanoclip-bundle push line3.kanoclip s3://plant-models/kanoclip --tag line3 --key line.key
  kanoclip-bundle pull oci://registry.plant/kanoclip:line3 --trust line.pub --install /var/lib/kanoclip
  kanoclip-bundle list oci://registry.plant/kanoclip
  kanoclip-bundle rollback /var/lib/kanoclip

Exit codes: 0 all fine; 1 a failure, which changed nothing; 2 wrong usage.
"""
_PULL_EPILOG = """
Examples:

\b
  kanoclip-bundle pull oci://registry.plant/kanoclip:line3 --trust line.pub --install /var/lib/kanoclip
  kanoclip-bundle pull s3://plant-models/kanoclip:line3 --trust line.pub --install /var/lib/kanoclip \\
      --then 'systemctl restart kanoclip'
  kanoclip-bundle pull /mnt/usb/bundles@sha256:1f0e... --trust line.pub --output line3.kanoclip
"""

_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
_trust_option = click.option(
    "--trust",
    type=click.Path(path_type=Path),
    multiple=True,
    envvar="KANOCLIP_TRUST",
    metavar="FILE.pub",
    help="A public key whose bundles are taken; may be given several times. Default: $KANOCLIP_TRUST.",
)
_then_option = click.option(
    "--then",
    metavar="COMMAND",
    help="Run this when another bundle became the current one, such as 'systemctl restart kanoclip'. "
    "pull goes back if it fails.",
)


@click.group(epilog=_EPILOG)
def command() -> None:
    """Bring bundles to many boxes: push, pull, list, verify, roll back.

    A store is an OCI registry (oci://HOST/REPOSITORY), a repository of Hugging Face's hub (hf://OWNER/NAME), a folder,
    or any URL that fsspec knows (s3://, gs://, sftp://).
    """


@command.command(epilog="Example: kanoclip-bundle keygen line")
@click.argument("name", type=click.Path(path_type=Path))
@_json_option
def keygen(name: Path, as_json: bool) -> None:
    """Make the keys NAME.key, to sign with and to keep secret, and NAME.pub, for the boxes.

    Set KANOCLIP_KEY_PASSWORD to have the first one encrypted. They are Ed25519, in PEM: `openssl genpkey -algorithm
    ed25519` makes such keys too.
    """
    from kanoclip.runtime.ops.fleet.keys import make_keys

    private, public = name.with_name(name.name + ".key"), name.with_name(name.name + ".pub")
    number = make_keys(private, public)
    result = {"private": str(private), "public": str(public), "id": number}
    _print(result, as_json, f"{private} signs: keep it secret. {public} goes to the boxes. Key {short(number)}")


@command.command(epilog=_EPILOG)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("url")
@click.option("--tag", default="latest", show_default=True, help="Name in the store, moved to this bundle.")
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE.key", help="Sign with this private key.")
@click.option(
    "--valid-for",
    type=click.IntRange(1, 36_500),
    metavar="DAYS",
    help="The signature is taken for so long. Default: for ever.",
)
@_json_option
def push(bundle: Path, url: str, tag: str, key: Path | None, valid_for: int | None, as_json: bool) -> None:
    """Put BUNDLE into the store at URL; files that are there already are not sent again."""
    from kanoclip.runtime.ops.fleet.keys import read_signing_key
    from kanoclip.runtime.ops.fleet.push import push as push_to
    from kanoclip.runtime.ops.fleet.reference import check_tag
    from kanoclip.runtime.ops.fleet.stores.store import open_store

    check_tag(tag)
    if valid_for is not None and key is None:
        raise click.UsageError("--valid-for is about the signature: name the --key.")
    signing = None if key is None else read_signing_key(key)
    store = open_store(url)
    opened = Bundle.open(bundle)
    with builds_shown(Console(stderr=True)) as report:
        pushed = push_to(opened, store, tag, signing, report, valid_for)
    if signing is None:
        click.echo("warning: it is not signed: boxes refuse it unless they pull with --unsigned", err=True)
    result = {
        "url": f"{store.shown}:{tag}",
        "address": pushed.address,
        "key": None if signing is None else signing.id,
        "sent_bytes": pushed.sent,
        "there_bytes": pushed.there,
    }
    _print(
        result,
        as_json,
        f"{store.shown}:{tag} is {pushed.address} now; {pushed.sent} bytes sent, {pushed.there} were there",
    )


@command.command(epilog=_PULL_EPILOG)
@click.argument("url", metavar="URL[:TAG|@sha256:...]")
@_trust_option
@click.option("--unsigned", is_flag=True, help="Take it without a signature: whoever can write to the store decides.")
@click.option("--output", type=click.Path(path_type=Path), metavar="NAME.kanoclip", help="Put it into this new folder.")
@click.option(
    "--install",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Make it FOLDER/current.kanoclip, if kanoclip-doctor agrees; those before it stay beside it.",
)
@_then_option
@click.option(
    "--keep", type=click.IntRange(min=2), default=3, show_default=True, help="Bundles that --install leaves in FOLDER."
)
@click.option("--again", is_flag=True, help="Install one that failed here before, or that was rolled back.")
@click.option("--older", is_flag=True, help="Install one that was signed before the current one.")
@click.option("--max-size", default="16G", show_default=True, callback=size, help="Refuse a bundle that is larger.")
@backend_options
@_json_option
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
    _check_words(then)
    if output is not None and (output.exists() or output.is_symlink()):
        raise FleetError(f"{output} is there already: name another folder")
    if install is not None and (inside := _bundle_around(install)) is not None:
        raise FleetError(f"{install} is or lies in the bundle {inside}, which may be in use: name a folder beside it")
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
            _print(
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
    result |= {"folder": str(installation.link), "changed": outcome.changed, "fetched_bytes": outcome.fetched}
    what = (
        f"is {outcome.address} now, signed by {signer}; {outcome.fetched} bytes fetched"
        if outcome.changed
        else (f"is {outcome.address} already")
    )
    _print(result, as_json, f"{installation.link} {what}")


@command.command("list", epilog="Example: kanoclip-bundle list s3://plant-models/kanoclip")
@click.argument("url")
@_json_option
def list_bundles(url: str, as_json: bool) -> None:
    """List the bundles of a store, or of a folder that pull --install fills."""
    rows = _installed(Path(url)) if (Path(url) / "versions").is_dir() else _in_store(url)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(
            *(
                Text("" if value is None else short(str(value)) if key == "address" else str(value))
                for key, value in row.items()
            )
        )
    Console(highlight=False).print(table if rows else "no bundles")


def _in_store(url: str) -> list[dict[str, Any]]:
    from kanoclip.runtime.ops.fleet.reference import is_address_tag
    from kanoclip.runtime.ops.fleet.stores.oci import read_image
    from kanoclip.runtime.ops.fleet.stores.store import open_store

    store = open_store(url)
    rows: list[dict[str, Any]] = []
    named = set()
    for tag in sorted(store.tags(), key=is_address_tag):
        try:
            image = read_image(store.image(tag))
        except FleetError as error:
            rows.append(
                {"tag": tag, "address": None, "name": str(error), "exported": None, "bytes": None, "signed": None}
            )
            continue
        if is_address_tag(tag) and image.address in named:
            continue
        named.add(image.address)
        rows.append(
            {
                "tag": None if is_address_tag(tag) else tag,
                "address": image.address,
                "name": image.name,
                "exported": image.created,
                "bytes": image.size,
                "signed": image.envelope is not None,
            }
        )
    return rows


def _installed(folder: Path) -> list[dict[str, Any]]:
    from kanoclip.runtime.ops.fleet.installation import Installation

    installation = Installation(folder)
    history, there = installation.history(), set(installation.versions())
    rows: list[dict[str, Any]] = []
    for one in reversed(history.installed):
        if one.address in there:
            state = "current" if one.address == installation.current else "kept"
            rows.append({"state": state, "address": one.address, "name": one.name, "at": one.at, "origin": one.origin})
    for other in reversed(history.refused):
        rows.append(
            {"state": "refused", "address": other.address, "name": other.reason, "at": other.at, "origin": None}
        )
    return rows


@command.command(epilog="Example: kanoclip-bundle verify /var/lib/kanoclip/current.kanoclip --trust line.pub")
@click.argument("bundle", type=click.Path(path_type=Path))
@_trust_option
@_json_option
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
    _print(result, as_json, f"{bundle} is {address}, every file as its manifest says{signed}")


@command.command(epilog="Example: kanoclip-bundle rollback /var/lib/kanoclip --then 'systemctl restart kanoclip'")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--to", metavar="sha256:...", help="Go to this one, or what begins so. Default: the one before.")
@_then_option
@_json_option
def rollback(folder: Path, to: str | None, then: str | None, as_json: bool) -> None:
    """Make the bundle before the current one the current one; pull takes the other again with --again only."""
    from kanoclip.runtime.ops.fleet.examine import run_command
    from kanoclip.runtime.ops.fleet.installation import Installation

    _check_words(then)
    if not (folder / "versions").is_dir():
        raise FleetError(f"{folder} is no folder that kanoclip-bundle pull --install filled")
    installation = Installation(folder)
    address = installation.roll_back(to, lambda: None if then is None else run_command(then))
    _print({"folder": str(installation.link), "address": address}, as_json, f"{installation.link} is {address} now")


def _bundle_around(folder: Path) -> Path | None:
    """The bundle that a folder is, or lies in; None for none."""
    resolved = folder.resolve()
    return next((one for one in (resolved, *resolved.parents) if (one / MANIFEST_NAME).is_file()), None)


def _check_words(then: str | None) -> None:
    """Refuses a command line that is none before anything is done."""
    try:
        empty = then is not None and not shlex.split(then)
    except ValueError as error:
        raise click.BadParameter(f"{then!r} is no command line ({error}).", param_hint="--then") from None
    if empty:
        raise click.BadParameter("it is empty.", param_hint="--then")


def _print(result: dict[str, Any], as_json: bool, words: str) -> None:
    click.echo(json.dumps(result, indent=2) if as_json else words)
