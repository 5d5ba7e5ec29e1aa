"""The knowledge bases that ship, one file per domain."""
