"""Data sets that `ltrec data` writes."""
