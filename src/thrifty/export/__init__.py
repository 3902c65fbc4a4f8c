"""Model to file and back: the bundle that is served, what computes it, and files for others; each is read back."""
