"""One bundle on many boxes: pushed to a store, signed, pulled whole or not at all, and taken back where it fails."""
