"""A table of kanoclip-score as one page: scores, worst cases, and what has drifted since another table."""
