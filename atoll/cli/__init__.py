"""Atoll in a terminal."""
