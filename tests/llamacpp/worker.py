"""Serve the embedded model until the process is killed; print the address first."""

import sys
import time

from rag_backbone.loading.llamacpp_server import LlamaCppServer

if __name__ == "__main__":
    with LlamaCppServer("embedded", threads=1, parallel=2, port=int(sys.argv[1])) as server:
        print(server.base_url, flush=True)
        time.sleep(3600)
