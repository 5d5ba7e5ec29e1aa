"""open_clip model configurations of the backbones that open_clip itself does not know."""
