"""KAnoCLIP: CLIP-VV image tower, prompts, Bi-CMCI, Conv-Adapter, maps and scores."""
