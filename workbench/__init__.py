"""A fine-tuning workbench: a recipe in, a proven adapter and the evidence for it out."""

__version__ = "0.5.0"
