"""`kanoclip-bundle`: from one machine to many, signed, and back."""
