"""What runs in a Python that has TensorFlow and need have no torch: it imports TensorFlow and NumPy alone."""
