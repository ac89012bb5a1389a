"""Atoll: one PC, or a rack of them, as a studio for Stable Diffusion pictures and talking digital humans."""

__version__ = "0.1.0"
