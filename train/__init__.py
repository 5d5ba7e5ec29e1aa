"""The model in torch, its frozen CLIP backbones and its checkpoints. Never imported by the runtime."""
