"""`kanoclip-knowledge`: show, check and build knowledge bases."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from kanoclip.runtime.cli.run_options.kinds import Decimal
from kanoclip.runtime.cli.terminal.bar import counted
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import KanoclipError, KnowledgeError

if TYPE_CHECKING:
    from kanoclip.train.knowledge.base import Entry, KnowledgeBase
    from kanoclip.train.knowledge.builder import Target

_OWN = "own"
_SHOWN_FAILURES = 10

_BUILD_EPILOG = """
Examples:

\b
  export OPENAI_API_KEY=...
  kanoclip-knowledge build --endpoint https://api.openai.com/v1 --model gpt-4o-mini \\
      --class "gear wheel" --class washer --output own.json
  kanoclip-knowledge build --endpoint http://localhost:11434/v1 --model llama3.1 --vision-model llama3.2-vision \\
      --dataset mvtec --root ~/data/parts --output parts.json

A build that was stopped goes on with the same command: what is in the file is not asked again.
"""


@click.group(
    epilog="Example:\n\n  kanoclip-knowledge show bottle",
)
def command() -> None:
    """The knowledge base that guides the prompts: in words, how an abnormal image of each class looks."""


@command.command()
@click.argument("name", required=False, metavar="[CLASS]")
@click.option("--dataset", metavar="NAME", help="Only this dataset's classes.")
@click.option("--file", "files", type=click.Path(path_type=Path), multiple=True, help="A base. Default: what ships.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str | None, dataset: str | None, files: tuple[Path, ...], as_json: bool) -> None:
    """Print what is known of a class, or of all."""
    base = _open(files)
    found = {
        key: entry
        for key, entry in base.entries.items()
        if dataset in (None, key[0]) and (name is None or name.lower() in (key[1].lower(), entry.class_name.lower()))
    }
    if not found:
        known = sorted({category for _, category in base.entries})
        raise KnowledgeError(f"the knowledge base has no such class or dataset: it knows {', '.join(known)}")
    if as_json:
        click.echo(json.dumps({f"{d}/{c}": asdict(entry) for (d, c), entry in found.items()}, indent=2))
        return
    console = Console()
    for (set_name, category), entry in found.items():
        console.print(f"[bold]{escape(f'{set_name}/{category}')}[/]  [dim]{escape(entry.class_name)}[/]")
        if entry.background:
            console.print(escape(entry.background), style="dim")
        for text in entry.descriptions:
            console.print(f"  - {escape(text)}", highlight=False)
        for text in entry.written:
            console.print(f"  + {escape(text)}", highlight=False)


@command.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """Say whether files are knowledge bases, and what they hold."""
    from kanoclip.train.knowledge.base import load_knowledge

    rows = []
    for path in files:
        base = load_knowledge(path)
        entries = base.entries.values()
        rows.append(
            {
                "file": str(path),
                "domain": base.domain,
                "version": base.version,
                "classes": len(base.entries),
                "abnormal": sum(len(entry.abnormal) for entry in entries),
                "observed": sum(len(entry.observed) for entry in entries),
                "normal": sum(len(entry.written) for entry in entries),
                "empty": ", ".join(f"{d}/{c}" for (d, c), entry in base.entries.items() if not entry.descriptions),
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        counted = f"{row['classes']} classes, {row['abnormal']} descriptions, {row['observed']} of single images"
        empty = f"; nothing on {row['empty']}" if row["empty"] else ""
        click.echo(f"{row['file']}: {row['domain']} {row['version']}, {counted}{empty}")


@command.command(epilog=_BUILD_EPILOG)
@click.option("--endpoint", required=True, metavar="URL", help="Base URL of an OpenAI-compatible API.")
@click.option("--model", metavar="NAME", help="Language model: n descriptions of each class.")
@click.option("--vision-model", metavar="NAME", help="Vision model: m descriptions of each anomalous image.")
@click.option("--dataset", metavar="NAME", help="Layout of a dataset, whose classes and images are asked about.")
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="The dataset's folder.")
@click.option("--category", "categories", multiple=True, metavar="NAME", help="Only these categories; repeatable.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="A class without a dataset; repeatable.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Base to write, or to go on with."
)
@click.option("--descriptions", type=click.IntRange(1, 50), default=5, show_default=True, help="n of the paper.")
@click.option(
    "--normal", type=click.IntRange(0, 50), default=0, show_default=True, help="Normal descriptions of each class, too."
)
@click.option("--per-image", type=click.IntRange(1, 10), default=1, show_default=True, help="m of the paper.")
@click.option("--images-per-class", type=click.IntRange(min=1), metavar="K", help="At most K images. Default: all.")
@click.option("--domain", default="own", show_default=True, help="Written into a new file.")
@click.option("--force", is_flag=True, help="Ask again about what the file knows already.")
@click.option("--key-env", default="OPENAI_API_KEY", show_default=True, metavar="VARIABLE", help="Holds the key.")
@click.option("--allow-http", is_flag=True, help="Send the key unencrypted to another machine.")
@click.option("--timeout", type=Decimal(min=0.1), default=120.0, show_default=True, help="Seconds.")
@click.option(
    "--retries", type=click.IntRange(min=0), default=5, show_default=True, help="After 429, 5xx, broken lines."
)
@click.option("--parallel", type=click.IntRange(1, 64), default=4, show_default=True, help="Questions at once.")
@click.option("--quiet", is_flag=True, help="No progress.")
def build(
    endpoint: str,
    model: str | None,
    vision_model: str | None,
    dataset: str | None,
    root: Path | None,
    categories: tuple[str, ...],
    classes: tuple[str, ...],
    output: Path,
    descriptions: int,
    normal: int,
    per_image: int,
    images_per_class: int | None,
    domain: str,
    force: bool,
    key_env: str,
    allow_http: bool,
    timeout: float,
    retries: int,
    parallel: int,
    quiet: bool,
) -> int:
    """Ask a language model, and a vision model about the images, and keep the answers."""
    from kanoclip.runtime.system.files.guard import Written, refuse_overwriting
    from kanoclip.train.data.files import read_below
    from kanoclip.train.knowledge.base import KnowledgeBase, load_knowledge, save_knowledge
    from kanoclip.train.knowledge.builder import Plan, questions
    from kanoclip.train.knowledge.builder import build as ask_all
    from kanoclip.train.knowledge.client import Client, Endpoint, check_endpoint

    if model is None and vision_model is None:
        raise click.UsageError("nothing to ask: give --model, --vision-model or both.")
    if (dataset is None) != (root is None):
        raise click.UsageError("--dataset and --root go together.")
    if dataset is None and not classes:
        raise click.UsageError("nothing to ask about: give --dataset and --root, or --class.")
    if dataset is None and (categories or model is None):
        raise click.UsageError("--category and --vision-model need --dataset and --root, which hold the images.")
    if any(not name.strip() for name in classes):
        raise click.UsageError("--class is empty.")
    key = os.environ.get(key_env) or None
    where = Endpoint(endpoint, key, key_env, timeout, retries)
    try:
        check_endpoint(where, allow_http)
    except KanoclipError as error:
        raise click.UsageError(str(error)) from error
    targets = _targets(dataset, root, categories, classes, images_per_class, wanted=vision_model is not None)
    refuse_overwriting([Written("--output", output)], [] if root is None else [read_below(root)])
    if output.exists():
        base = load_knowledge(output)
    else:
        base = KnowledgeBase(domain, "1", " and ".join(name for name in (model, vision_model) if name), {})
    if force:
        base = _without(base, targets, words=model is not None, images=vision_model is not None)
    save_knowledge(output, base)  # before the first question is paid for
    plan = Plan(model, vision_model, descriptions, per_image, parallel, normal)
    console = Console(stderr=True)
    with counted(console, "asking", len(questions(base, targets, plan)), quiet=quiet) as advance:
        failures = ask_all(base, targets, plan, Client(where), output, advance)
    for line in failures[:_SHOWN_FAILURES]:
        console.print(f"failed: {line}", highlight=False, markup=False, soft_wrap=True)
    if failures:
        raise KnowledgeError(
            f"{len(failures)} questions failed, the other answers are in {output}: the same command asks only what is "
            "missing"
        )
    if not quiet:
        console.print(f"knowledge base: {output} (train with --knowledge {output})", highlight=False, soft_wrap=True)
    return 0


def _open(files: tuple[Path, ...]) -> KnowledgeBase:
    from kanoclip.train.knowledge.base import load_knowledge, merged, shipped_knowledge

    return merged([load_knowledge(path) for path in files]) if files else shipped_knowledge()


def _targets(
    dataset: str | None,
    root: Path | None,
    categories: tuple[str, ...],
    classes: tuple[str, ...],
    limit: int | None,
    *,
    wanted: bool,
) -> list[Target]:
    """The classes to ask about, with their anomalous images where those are `wanted`."""
    from kanoclip.train.data.registry import open_dataset
    from kanoclip.train.knowledge.builder import Target

    targets = [Target(_OWN, name, name) for name in dict.fromkeys(classes)]
    if dataset is None or root is None:
        return targets
    for category in open_dataset(dataset, root, categories=categories).categories:
        paths = [sample.image for sample in category.samples if sample.anomalous] if wanted else []
        if limit is not None and len(paths) > limit:
            # Spread over all of them, because neighbours show the same defect.
            paths = [paths[i * len(paths) // limit] for i in range(limit)]
        images = tuple((path.relative_to(root).as_posix(), path) for path in paths)
        targets.append(Target(dataset, category.name, category.class_name, images))
    return targets


def _without(base: KnowledgeBase, targets: list[Target], *, words: bool, images: bool) -> KnowledgeBase:
    """The base without the answers that are to be asked again."""
    from dataclasses import replace

    entries: dict[tuple[str, str], Entry] = dict(base.entries)
    for target in targets:
        if (entry := entries.get(target.key)) is not None:
            descriptions = () if words else entry.abnormal
            observed = () if images else entry.observed
            written = () if words else entry.written
            entries[target.key] = replace(entry, abnormal=descriptions, observed=observed, written=written)
    return replace(base, entries=entries)
