"""Ratios of two results with confidence intervals."""
