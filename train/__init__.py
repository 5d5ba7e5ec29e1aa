"""The model in torch, its frozen CLIP backbones and its checkpoints. Never imported by the runtime."""

import os

# Before huggingface_hub is imported, which open_clip does: nothing is reported beside what a download needs.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
