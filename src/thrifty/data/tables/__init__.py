"""Tables of columns: what each column is, what is to be told, and rows as numbers."""
