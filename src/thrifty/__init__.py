"""thrifty: deep learning for the least compute. The verbs are in `thrifty.api`, the nouns in `thrifty.spec`."""

__version__ = "0.1.0"
