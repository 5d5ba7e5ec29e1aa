"""From an ONNX graph to a TensorRT engine on disk: built, checked, cached, found again."""
