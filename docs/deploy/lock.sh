#!/bin/sh
# Writes lock-*.txt anew: every package of an image with its version and hashes, for `pip install --require-hashes`.
# Needs uv (pip install uv) and the network. Run it from the project's top folder after changing dependencies.
set -eu
here=docs/deploy
lock() { # name, extra, Python, platform, further options
    name=$1 extra=$2 python=$3 platform=$4
    shift 4
    uv pip compile pyproject.toml "$@" --extra "$extra" --python-version "$python" --python-platform "$platform" \
        --constraint "$here/constraints-$name.txt" --generate-hashes --no-header --no-annotate --quiet \
        --output-file "$here/lock-$name.txt"
}
extra_packages=$(mktemp)
no_tensorrt=$(mktemp)
trap 'rm -f "$extra_packages" "$no_tensorrt"' EXIT
echo cuda-python >"$extra_packages"
# TensorRT's package on PyPI is a stub that fetches the libraries from NVIDIA's own index: there is nothing to hash.
echo "tensorrt-cu13; python_version < '3'" >"$no_tensorrt"
# Hashes are those of all files of a version, so that one list serves both of this image's architectures.
lock cpu cpu 3.13 x86_64-manylinux_2_35
lock jetpack6 cpu 3.10 aarch64-manylinux_2_35 "$extra_packages"
lock jetpack7 cpu 3.12 aarch64-manylinux_2_35 "$extra_packages"
lock x86 gpu-cu13 3.12 x86_64-manylinux_2_35 --override "$no_tensorrt"
