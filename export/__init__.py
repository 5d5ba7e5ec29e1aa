"""From a checkpoint to a bundle: bake the text, fold, choose precision, write ONNX, prove parity, build engines."""
