"""Where results and inputs lie, and what they say about themselves."""
