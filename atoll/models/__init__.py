"""Where model files lie, what they are called, and what each of them is. Nothing here loads torch."""
