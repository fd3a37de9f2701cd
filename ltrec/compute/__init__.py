"""Where and how arithmetic is done: the device, its precision, and the processes that share the work."""
