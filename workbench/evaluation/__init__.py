"""Scoring: frozen items in, one row an item out."""
