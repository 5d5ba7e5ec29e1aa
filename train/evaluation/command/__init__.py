"""`kanoclip-eval`: a bundle, a checkpoint or a training-free baseline, measured on a dataset."""
