"""Texts with labels: rows out of tables and folders, their labels, and how they become tokens."""
