"""From files to lists, splits and arrays."""
