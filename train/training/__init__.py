"""Training of prompts, Bi-CMCI and Conv-Adapter (section 2.5)."""
