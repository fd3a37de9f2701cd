"""The files of the published research code: its checkpoints and its feature dumps, read and written."""
