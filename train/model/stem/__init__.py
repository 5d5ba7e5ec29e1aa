"""The convolutional stem: EfficientNet-Lite, and the tokens and descriptors that are made of it."""
