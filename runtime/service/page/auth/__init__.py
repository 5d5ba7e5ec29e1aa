"""Who may see the page and change anything on it."""
