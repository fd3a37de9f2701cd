"""Images and which of them belong where."""
