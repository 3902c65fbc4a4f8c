"""Recordings: decoded, brought to one rate, made into frames, with a label or with what is said."""
