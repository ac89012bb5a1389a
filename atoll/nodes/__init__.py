"""The engine's functions declared as nodes, one file per subject."""
