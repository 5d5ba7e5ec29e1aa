"""What fills a store: keys to sign with, pushing, and a list of what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.cli.bundle.options import check_beside_bundles, json_option, print_result
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.address import short

EPILOG = """
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


@click.command(epilog="Example: kanoclip-bundle keygen line")
@click.argument("name", type=click.Path(path_type=Path))
@json_option
def keygen(name: Path, as_json: bool) -> None:
    """Make the keys NAME.key, to sign with and to keep secret, and NAME.pub, for the boxes.

    Set KANOCLIP_KEY_PASSWORD to have the first one encrypted. They are Ed25519, in PEM: `openssl genpkey -algorithm
    ed25519` makes such keys too.
    """
    from kanoclip.runtime.ops.fleet.keys import make_keys

    private, public = name.with_name(name.name + ".key"), name.with_name(name.name + ".pub")
    number = make_keys(private, public)
    result = {"private": str(private), "public": str(public), "id": number}
    print_result(result, as_json, f"{private} signs: keep it secret. {public} goes to the boxes. Key {short(number)}")


@click.command(epilog=EPILOG)
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
@json_option
def push(bundle: Path, url: str, tag: str, key: Path | None, valid_for: int | None, as_json: bool) -> None:
    """Put BUNDLE into the store at URL; files that are there already are not sent again."""
    from kanoclip.runtime.ops.fleet.keys import read_signing_key
    from kanoclip.runtime.ops.fleet.push import push as push_to
    from kanoclip.runtime.ops.fleet.reference import check_tag
    from kanoclip.runtime.ops.fleet.stores.layout import FolderLayout
    from kanoclip.runtime.ops.fleet.stores.store import open_store

    check_tag(tag)
    if valid_for is not None and key is None:
        raise click.UsageError("--valid-for is about the signature: name the --key.")
    signing = None if key is None else read_signing_key(key)
    store = open_store(url)
    if isinstance(store, FolderLayout) and store.folder is not None:
        check_beside_bundles(store.folder)
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
    print_result(
        result,
        as_json,
        f"{store.shown}:{tag} is {pushed.address} now; {pushed.sent} bytes sent, {pushed.there} were there",
    )


@click.command("list", epilog="Example: kanoclip-bundle list s3://plant-models/kanoclip")
@click.argument("url")
@json_option
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
    history, there = installation.history(), set(installation.versions.addresses())
    rows: list[dict[str, Any]] = []
    for one in reversed(history.installed):
        if one.address in there:
            state = "current" if one.address == installation.versions.current else "kept"
            rows.append({"state": state, "address": one.address, "name": one.name, "at": one.at, "origin": one.origin})
    for other in reversed(history.refused):
        rows.append(
            {"state": "refused", "address": other.address, "name": other.reason, "at": other.at, "origin": None}
        )
    return rows
