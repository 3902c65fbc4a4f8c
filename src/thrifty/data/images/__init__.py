"""Images: found in folders, arrays, shards and tables, decoded, fitted to one size, changed by chance."""
