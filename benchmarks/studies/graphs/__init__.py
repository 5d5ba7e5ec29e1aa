"""What the exported graph costs: operations, rewrites, precisions, engines, batches."""
