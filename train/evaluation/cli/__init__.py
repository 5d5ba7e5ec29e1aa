"""What every form of `kanoclip-eval` shares: options, checks, opening a model, going through a dataset."""
