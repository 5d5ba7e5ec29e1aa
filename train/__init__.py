"""The model in torch, its frozen CLIP backbones and its checkpoints. Never imported by the runtime."""

import os

# open_clip imports huggingface_hub, which reads this once: nothing is sent that nobody asked for.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
