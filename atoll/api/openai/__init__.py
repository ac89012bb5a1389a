"""The OpenAI door: images and models as its clients know them, one file per group of routes."""
