"""An HTTP server that answers in a thread of this process."""

import threading
from contextlib import contextmanager


@contextmanager
def serving(server):
    """Serve in the block; yield the server."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
