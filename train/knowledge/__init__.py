"""The LLM-VQA knowledge base (KnPL, section 2.2.1)."""
