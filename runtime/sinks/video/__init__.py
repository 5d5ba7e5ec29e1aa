"""Annotated video: encoders and segments."""
