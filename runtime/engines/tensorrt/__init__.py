"""TensorRT in both flavours: building engines, keeping them, and the device memory that they run in."""
