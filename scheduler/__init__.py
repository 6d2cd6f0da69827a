"""The scheduler: it only enqueues what is due. Any number may run; one of them leads."""
