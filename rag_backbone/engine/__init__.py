"""One model, called by one thread: requests are queued, batched, and answered token by token with their signals."""
