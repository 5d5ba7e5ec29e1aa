"""`kanoclip-eval`: a bundle, a checkpoint or a training-free baseline, measured on a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.cli.options import BundleCommand, json_option, quiet_option, reading_options
from kanoclip.runtime.cli.run_options.kinds import Decimal
from kanoclip.runtime.cli.terminal.bar import counted
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.detect.tiles import parse_grid
from kanoclip.runtime.engines import BACKENDS
from kanoclip.runtime.errors import DataError, KanoclipError
from kanoclip.runtime.sources.files.reading import Reading
from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting
from kanoclip.train.evaluation.ablation.options import taking_training_options, training_arguments

if TYPE_CHECKING:
    from kanoclip.train.evaluation.ablation.rows import Row
    from kanoclip.train.evaluation.predictor import BundlePredictor, Predictor
    from kanoclip.train.evaluation.results import Results
    from kanoclip.train.model.kanoclip import Prompts

_EPILOG = """
Examples:

\b
  kanoclip-eval --dataset mvtec --root ~/data/mvtec                      # the bundle that is shipped
  kanoclip-eval line3.kanoclip --dataset mvtec --root ~/data/mvtec --output out.json
  kanoclip-eval --checkpoint vit-l.safetensors --dataset visa --root ~/data/visa --compare paper --sheet cases.jpg
  kanoclip-eval --prompts handcrafted --backbone vit-l-14-336 --dataset mvtec --root ~/data/mvtec
  kanoclip-eval --shots 1,4 --draws 5 --tiles auto --dataset mvtec --root ~/data/mvtec --output few.json
  kanoclip-eval --unlabelled 32 --share 0.1 --dataset mvtec --root ~/data/mvtec
  kanoclip-eval --suite paper.toml --output tables.json --markdown tables.md
  kanoclip-eval --ablation --train-dataset visa --train-root ~/data/visa --dataset mvtec --root ~/data/mvtec \\
      --backbone vit-l-14-336 --kd-margin 1.5 --checkpoints ablation/

Exit codes: 0 all fine; 1 a failure, or images that were skipped; 2 wrong usage.
"""


_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True)
class _Options:
    """The command line; what each means is in its option's help."""

    bundle: Path | None
    checkpoint: Path | None
    prompts: Prompts | None
    backbone: str | None
    weights: str
    image_size: int | None
    no_vv: bool
    windows: bool
    sigma: float | None
    suite_file: Path | None
    dataset: str
    root: Path
    categories: tuple[str, ...]
    class_name: str | None
    batch_size: int
    backend: str
    device: str
    threads: int | None
    output: Path | None
    csv_file: Path | None
    markdown_file: Path | None
    sheet: Path | None
    sheet_cases: int
    compare: str | None
    skip_bad: bool
    shots: tuple[int, ...]
    unlabelled: int | None
    share: float
    draws: int
    tiles: TileGrid | str | None
    rate: float
    ablation: bool
    train_dataset: str | None
    train_root: Path | None
    train_categories: tuple[str, ...]
    epochs: int
    seed: int
    reading: Reading
    checkpoints: Path | None
    training: tuple[str, ...]
    as_json: bool
    quiet: bool


def _counts(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in value.split(",")) if value else ()
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise click.BadParameter(f"{value!r}: write whole numbers from 1, such as 1,2,4", ctx=ctx, param=param)
    return tuple(dict.fromkeys(counts))


def _tiles(ctx: click.Context, param: click.Parameter, value: str | None) -> TileGrid | str | None:
    if value is None or value == "auto":
        return value
    try:
        return parse_grid(value)
    except KanoclipError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None


@click.command(cls=BundleCommand, epilog=_EPILOG)
@click.option("--bundle", metavar="PATH", help="Measure a bundle. Default, and called builtin: the shipped one.")
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="Measure a checkpoint in torch.")
@click.option(
    "--prompts",
    type=click.Choice(["learned", "template", "handcrafted"]),
    help="Measure a backbone without a checkpoint: handcrafted is the training-free baseline.",
)
@click.option("--backbone", metavar="NAME", help="For --prompts and --ablation: a name such as vit-l-14-336.")
@click.option("--weights", default="auto", show_default=True, metavar="auto|none|FILE", help="The backbone's weights.")
@click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS", help="Default: the backbone's own.")
@click.option("--no-vv", is_flag=True, help="For --prompts: plain CLIP, without V-V path and modules.")
@click.option("--windows", is_flag=True, help="For --prompts: look through windows of patches too, as WinCLIP does.")
@click.option(
    "--sigma",
    type=Decimal(0, 100, min_open=True),
    metavar="PIXELS",
    help="Of the maps' Gaussian, for --checkpoint and --prompts. Default: the image's height by 336, times 4.",
)
@click.option(
    "--suite",
    "suite_file",
    type=_FILE,
    metavar="FILE.toml",
    help="Measure what the file names on the datasets whose folders it gives, and write tables 1 to 3.",
)
@click.option("--dataset", metavar="NAME", help="Layout of the dataset: see `kanoclip-data list`.")
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="The dataset's folder.")
@click.option("--category", "categories", multiple=True, metavar="NAME", help="Only these; repeatable.")
@click.option("--class-name", metavar="WORDS", help="Words for [class] in every prompt. Default: each category's own.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="Of a bundle.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: the engine's choice.")
@click.option("--output", type=_FILE, metavar="FILE.json", help="Write all of it as JSON.")
@click.option("--csv", "csv_file", type=_FILE, metavar="FILE", help="Write the table as CSV.")
@click.option("--markdown", "markdown_file", type=_FILE, metavar="FILE", help="Write the table as Markdown.")
@click.option("--sheet", type=_FILE, metavar="FILE", help="Image of the best and worst cases (.png, .jpg).")
@click.option("--sheet-cases", type=click.IntRange(min=1), default=4, show_default=True, help="Of each kind.")
@click.option("--compare", type=click.Choice(["paper"]), help="Show the paper's figures for the dataset beside ours.")
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read; exit code 1 says so.")
@click.option(
    "--shots",
    callback=_counts,
    default="",
    metavar="LIST",
    help="Give a bundle so many good images as references, drawn anew --draws times: 1,2,4,8,16.",
)
@click.option(
    "--unlabelled", type=click.IntRange(min=3), metavar="N", help="Give it N frames of which no one says what they are."
)
@click.option("--share", type=Decimal(0, 1), default=0.1, show_default=True, help="Of them that are anomalous.")
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True, help="For --shots and --unlabelled.")
@click.option(
    "--tiles",
    callback=_tiles,
    metavar="auto|ROWSxCOLUMNS",
    help="Cut frames into tiles; auto: by the references' aspect. Default: as the bundle has it.",
)
@click.option(
    "--false-alarm-rate",
    "rate",
    type=Decimal(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Of the threshold that references set; its recall is in the table.",
)
@click.option("--ablation", is_flag=True, help="Train and measure the rows of table 3.")
@click.option("--train-dataset", metavar="NAME", help="For --ablation: what to train on.")
@click.option("--train-root", type=click.Path(path_type=Path), metavar="DIR", help="For --ablation: its folder.")
@click.option("--train-category", "train_categories", multiple=True, metavar="NAME", help="For --ablation; repeatable.")
@click.option("--epochs", type=click.IntRange(min=1), default=15, show_default=True, help="For --ablation.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For --ablation.")
@click.option("--checkpoints", type=click.Path(path_type=Path), metavar="DIR", help="For --ablation: where they go.")
@taking_training_options
@json_option
@quiet_option
@reading_options
def command(bundle: str | None, **values: Any) -> int:
    """Measure image and pixel metrics, each category and their mean."""
    context = click.get_current_context()
    training = training_arguments(context, values)
    if values["suite_file"] is None:
        for flag in ("dataset", "root"):
            if values[flag] is None:
                raise click.UsageError(f"--{flag} is missing: name it, or a --suite file.")
    options = _Options(bundle=None if bundle is None else Path(bundle), training=training, **values)
    if options.suite_file is not None:
        return _suite(context, options, options.suite_file)
    _check(options)
    if options.ablation:
        return _ablation(options)
    return _few_shot(options) if options.shots or options.unlabelled else _evaluate(options)


def _check(options: _Options) -> None:
    """Refuses flags that do not go together."""
    from kanoclip.train.data.files import read_below
    from kanoclip.train.evaluation.sheet import SUFFIXES

    kinds = {
        "--bundle": options.bundle is not None,
        "--checkpoint": options.checkpoint is not None,
        "--prompts": options.prompts is not None,
        "--ablation": options.ablation,
    }
    given = [flag for flag, is_given in kinds.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other: give one of {', '.join(kinds)}.")
    given = given or ["--bundle"]
    if options.backbone is None and given[0] in ("--prompts", "--ablation"):
        raise click.UsageError(f"{given[0]} needs --backbone.")
    if given[0] in ("--bundle", "--checkpoint") and options.backbone is not None:
        raise click.UsageError(f"--backbone is decided by the {given[0][2:]}: leave it out.")
    if given[0] == "--bundle" and options.image_size is not None:
        raise click.UsageError("--image-size is decided by the bundle: leave it out.")
    for flag, plain in (("--no-vv", options.no_vv), ("--windows", options.windows)):
        if plain and (given[0] != "--prompts" or options.prompts == "learned"):
            raise click.UsageError(f"{flag} is for --prompts template or handcrafted.")
    if options.sigma is not None and given[0] not in ("--checkpoint", "--prompts"):
        raise click.UsageError("--sigma is for --checkpoint and --prompts; a bundle's Gaussian is in its graph.")
    if given[0] == "--bundle" and options.weights != "auto":
        raise click.UsageError("--weights is decided by the bundle: leave it out.")
    if given[0] != "--bundle" and options.backend != "auto":
        raise click.UsageError("--backend is for bundles; checkpoints run in torch.")
    few = options.shots or options.unlabelled
    if few and given[0] != "--bundle":
        raise click.UsageError("references are for bundles: leave --shots and --unlabelled out.")
    if options.shots and options.unlabelled:
        raise click.UsageError("--shots and --unlabelled exclude each other: run twice.")
    if options.tiles is not None and not few:
        raise click.UsageError("--tiles is for --shots and --unlabelled; otherwise the bundle decides.")
    if few and options.csv_file is not None:
        raise click.UsageError("--csv is for one table: take --output or --markdown.")
    training = {
        "--train-dataset": options.train_dataset,
        "--train-root": options.train_root,
        "--checkpoints": options.checkpoints,
    }
    for flag, value in training.items():
        if options.ablation and value is None:
            raise click.UsageError(f"--ablation needs {flag}.")
        if not options.ablation and value is not None:
            raise click.UsageError(f"{flag} is for --ablation.")
    if options.training and not options.ablation:
        raise click.UsageError(f"{options.training[0]} is for --ablation, whose rows are trained with it.")
    if options.ablation and (options.sheet or options.csv_file or options.compare):
        raise click.UsageError(
            "--ablation writes --output and --markdown only, the paper's figures always beside ours."
        )
    if options.class_name is not None and not is_one_line(options.class_name):
        raise click.UsageError(f"--class-name {options.class_name!r} has a line end or a control character.")
    if options.class_name is not None and not options.class_name.strip():
        raise click.UsageError("--class-name is empty: leave it out, or name what the images show.")
    if options.sheet is not None and options.sheet.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--sheet {options.sheet}: end its name in one of {', '.join(SUFFIXES)}.")
    places = {
        "--output": options.output,
        "--csv": options.csv_file,
        "--markdown": options.markdown_file,
        "--sheet": options.sheet,
    }
    inputs = {"the checkpoint": options.checkpoint, "the bundle": options.bundle}
    refuse_overwriting(
        [Written(flag, path) for flag, path in places.items() if path is not None],
        [
            *(Read(what, path, closed=what == "the bundle") for what, path in inputs.items() if path is not None),
            *(read_below(root) for root in (options.root, options.train_root) if root is not None),
        ],
    )


def _evaluate(options: _Options) -> int:
    from kanoclip.runtime.system.installed import installed_versions
    from kanoclip.train.evaluation.paper import paper_rows
    from kanoclip.train.evaluation.sheet import CaseKeeper, write_sheet
    from kanoclip.train.evaluation.tables import as_json, comma_separated, markdown, print_results, write_text

    keeper = CaseKeeper(options.sheet_cases) if options.sheet is not None else None
    results = _measure(options, lambda: _predictor(options), keeper)
    paper = paper_rows(options.dataset) if options.compare is not None else None
    if not options.quiet:
        print_results(Console(stderr=options.as_json), results, paper)
    if options.output is not None or options.as_json:
        versions = installed_versions(("kanoclip-edge", "torch", "onnxruntime", "onnxruntime-gpu", "openvino", "numpy"))
        _give(options, as_json(results, paper, versions))
    if options.csv_file is not None:
        write_text(options.csv_file, comma_separated(results))
    if options.markdown_file is not None:
        write_text(options.markdown_file, markdown(results, paper))
    if options.sheet is not None and keeper is not None:
        write_sheet(options.sheet, keeper)
    if results.skipped:
        click.echo(f"warning: {len(results.skipped)} images were skipped: {results.skipped[0]}", err=True)
        return 1
    return 0


def _few_shot(options: _Options) -> int:
    from kanoclip.runtime.system.installed import installed_versions
    from kanoclip.train.data.registry import open_dataset
    from kanoclip.train.data.types import Dataset
    from kanoclip.train.evaluation.evaluate import EvaluationConfig
    from kanoclip.train.evaluation.few_shot import FewShot, Protocol, few_shot
    from kanoclip.train.evaluation.few_shot_tables import few_shot_markdown, print_few_shot, published
    from kanoclip.train.evaluation.sheet import CaseKeeper, write_sheet
    from kanoclip.train.evaluation.tables import write_text

    dataset = open_dataset(options.dataset, options.root, categories=options.categories)
    pool: Dataset | None = None
    if options.shots:
        with suppress(DataError):  # a dataset of test images alone
            pool = open_dataset(options.dataset, options.root, categories=options.categories, split="train")
    keeper = CaseKeeper(options.sheet_cases) if options.sheet is not None else None
    predictor = _bundle_predictor(options)
    config = EvaluationConfig(options.batch_size, options.skip_bad, options.class_name, options.reading)
    found: dict[int, FewShot] = {}
    try:
        for frames in options.shots or (options.unlabelled or 0,):
            protocol = Protocol(
                frames,
                options.draws,
                None if options.shots else options.share,
                options.rate,
                predictor.detector.bundle.manifest.tiles if options.tiles is None else options.tiles,
                options.seed,
            )
            total = options.draws * sum(len(category.samples) for category in dataset.categories)
            with _bar(options, total) as advance:
                found[frames] = few_shot(
                    dataset, pool, predictor, protocol, config, advance, keeper or (lambda _: None)
                )
    finally:
        predictor.close()
    beside = {frames: published(options.dataset, frames) if options.shots else [] for frames in found}
    if not options.quiet:
        for frames, one in found.items():
            print_few_shot(Console(stderr=options.as_json), one, beside[frames])
    if options.output is not None or options.as_json:
        last = list(found.values())[-1]
        versions = installed_versions(("kanoclip-edge", "onnxruntime", "onnxruntime-gpu", "openvino", "numpy"))
        record = {
            **last.as_json(),
            "dataset": dataset.name,
            "root": dataset.root.resolve().name,
            "model": predictor.about,
            "versions": versions,
        }
        if len(found) > 1:
            record["by_shots"] = {str(frames): one.as_json() for frames, one in found.items()}
        _give(options, json.dumps(record, indent=2, allow_nan=False) + "\n")
    if options.markdown_file is not None:
        write_text(options.markdown_file, "\n".join(few_shot_markdown(one, beside[n]) for n, one in found.items()))
    if options.sheet is not None and keeper is not None:
        write_sheet(options.sheet, keeper)
    return 0


def _give(options: _Options, record: str) -> None:
    """Writes the JSON where it is wanted."""
    from kanoclip.train.evaluation.tables import write_text

    if options.output is not None:
        write_text(options.output, record)
    if options.as_json:
        click.echo(record, nl=False)


def _measure(options: _Options, open_predictor: Any, keeper: Any = None) -> Results:
    """Opens dataset and predictor and goes through the images with a progress bar."""
    from kanoclip.train.data.registry import open_dataset
    from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate

    dataset = open_dataset(options.dataset, options.root, categories=options.categories)
    if dataset.problems:
        first = dataset.problems[0]
        click.echo(
            f"warning: {len(dataset.problems)} problems in {options.root}, such as {first.path}: {first.reason} "
            "(see `kanoclip-data check`)",
            err=True,
        )
    predictor: Predictor = open_predictor()
    try:
        with _bar(options, sum(len(category.samples) for category in dataset.categories)) as advance:
            return evaluate(
                dataset,
                predictor,
                EvaluationConfig(options.batch_size, options.skip_bad, options.class_name, options.reading),
                advance,
                keeper or (lambda _: None),
            )
    finally:
        predictor.close()


def _bar(options: _Options, total: int) -> AbstractContextManager[Callable[[], None]]:
    """A progress bar; what it gives is called after each image."""
    return counted(Console(stderr=True), "measuring", total, quiet=options.quiet)


def _predictor(options: _Options) -> Predictor:
    """The one that the flags name, else the shipped bundle. torch is imported for checkpoints and backbones only."""
    if options.checkpoint is None and options.prompts is None:
        return _bundle_predictor(options)
    _set_threads(options.threads)
    if options.checkpoint is not None:
        from kanoclip.train.evaluation.suite.methods import open_checkpoint

        return open_checkpoint(options.checkpoint, options.weights, options.image_size, options.sigma, options.device)
    assert options.prompts is not None  # the first line has served everything else
    plain = options.no_vv or options.windows
    name = f"{options.prompts} prompts{' over windows' if options.windows else ''}, nothing trained"
    return _untrained(options, options.prompts, name, plain=plain)


def _bundle_predictor(options: _Options) -> BundlePredictor:
    from kanoclip.runtime.bundle.bundle import BUILTIN
    from kanoclip.runtime.service.logs import log_lines
    from kanoclip.train.evaluation.predictor import BundlePredictor

    with log_lines(quiet=options.quiet):
        return BundlePredictor(options.bundle or Path(BUILTIN), options.backend, options.device, options.threads)


def _untrained(options: _Options, prompts: Prompts, name: str, *, plain: bool = False) -> Predictor:
    """A backbone whose head has learned nothing; a `plain` one has neither V-V path nor head modules."""
    from kanoclip.train.backbones import get_backbone
    from kanoclip.train.checkpoint import build_model
    from kanoclip.train.evaluation.predictor import CheckpointPredictor
    from kanoclip.train.evaluation.suite.methods import smooth
    from kanoclip.train.evaluation.suite.winclip import WindowPredictor
    from kanoclip.train.model.kanoclip import ModelConfig

    try:
        entry = get_backbone(options.backbone or "")
    except KanoclipError as error:
        raise click.UsageError(str(error)) from error
    size = (options.image_size, options.image_size) if options.image_size else entry.native_size
    on = not plain
    config = ModelConfig(
        entry.name,
        size,
        vv=on,
        bicmci=on,
        conv_adapter=on,
        prompts=prompts,
        self_similarity=entry.self_similarity,
        global_temperature=entry.global_temperature,
    )
    loaded = build_model(config, options.weights)
    smooth(loaded, options.sigma)
    return (WindowPredictor if options.windows else CheckpointPredictor)(loaded, options.device, name)


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


_READING = {"damaged", "bit_depth", "max_pixels"}
_HOW = {"batch_size", "device", "threads", "skip_bad", "output", "markdown_file", "as_json", "quiet", *_READING}
_OF_A_SUITE = {"suite_file", *_HOW}
"""What may be given beside --suite; the file says the rest."""


def _suite(context: click.Context, options: _Options, path: Path) -> int:
    from kanoclip.runtime.system.installed import installed_versions
    from kanoclip.train.evaluation.evaluate import EvaluationConfig
    from kanoclip.train.evaluation.suite.command import run_suite
    from kanoclip.train.evaluation.suite.file import read_suite
    from kanoclip.train.evaluation.suite.tables import suite_json, suite_markdown
    from kanoclip.train.evaluation.tables import write_text

    for param in context.command.params:
        given = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and param.name not in _OF_A_SUITE:
            raise click.UsageError(f"{param.opts[0]} is not for --suite, whose file says what is measured.")
    suite = read_suite(path)
    places = {"--output": options.output, "--markdown": options.markdown_file}
    refuse_overwriting(
        [Written(flag, place) for flag, place in places.items() if place is not None], [Read("the suite file", path)]
    )
    _set_threads(options.threads)
    console = Console(stderr=True, quiet=options.quiet)
    config = EvaluationConfig(options.batch_size, options.skip_bad, reading=options.reading)
    found = run_suite(suite, config, options.device, console, lambda total: _bar(options, total))
    text = suite_markdown(found)
    if options.markdown_file is not None:
        write_text(options.markdown_file, text)
    if options.output is not None or options.as_json:
        versions = installed_versions(("kanoclip-edge", "torch", "open_clip_torch", "numpy"))
        _give(options, json.dumps(suite_json(found, versions), indent=2, allow_nan=False) + "\n")
    if not (options.quiet or options.as_json):
        click.echo(text, nl=False)
    every = [one for row in found.rows for one in row.results.values()]
    every += [one for rows in found.ablation.values() for _, one in rows]
    return 1 if any(one.skipped for one in every) else 0


def _ablation(options: _Options) -> int:
    from kanoclip.train.checkpoint import load_checkpoint
    from kanoclip.train.evaluation.ablation.rows import ablation_lines, print_ablation, run_ablation
    from kanoclip.train.evaluation.predictor import CheckpointPredictor
    from kanoclip.train.evaluation.tables import markdown_table, write_text

    folder = options.checkpoints
    assert folder is not None  # `_check` has refused its absence
    _set_threads(options.threads)

    def measure(row: Row, checkpoint: Path | None) -> Results:
        def open_predictor() -> Predictor:
            if checkpoint is None:
                return _untrained(options, "template", row.name, plain=True)
            return CheckpointPredictor(load_checkpoint(checkpoint, options.weights), options.device, row.name)

        return _measure(options, open_predictor)

    console = Console(stderr=options.as_json)
    done = run_ablation(_training_arguments(options), folder, measure, console)
    if not options.quiet:
        print_ablation(console, done, options.dataset)
    headings, lines = ablation_lines(done, options.dataset)
    if options.markdown_file is not None:
        write_text(options.markdown_file, "\n".join(markdown_table(headings, lines)) + "\n")
    if options.output is not None or options.as_json:
        record = {row.name: results.as_json() for row, results in done}
        _give(options, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return 1 if any(results.skipped for _, results in done) else 0


def _training_arguments(options: _Options) -> list[str]:
    """What every row's `kanoclip-train` has in common."""
    arguments = ["--dataset", str(options.train_dataset), "--root", str(options.train_root)]
    for category in options.train_categories:
        arguments += ["--category", category]
    arguments += ["--backbone", str(options.backbone), "--weights", options.weights]
    if options.image_size is not None:
        arguments += ["--image-size", str(options.image_size)]
    if options.threads is not None:
        arguments += ["--threads", str(options.threads)]
    if options.class_name is not None:
        arguments += ["--class-name", options.class_name]
    arguments += ["--epochs", str(options.epochs), "--seed", str(options.seed), "--device", options.device]
    arguments += ["--batch-size", str(options.batch_size), *options.training]
    return [*arguments, "--quiet"] if options.quiet else arguments
