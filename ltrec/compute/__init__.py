"""Where and how arithmetic is done: the device, its precision, the processes that share the work."""
