"""What fails, hangs, ends or joins beside the frames of a run."""
