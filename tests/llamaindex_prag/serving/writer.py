"""A process that writes the same folders as another process at the same time; does not need torch."""

import json
import sys
from pathlib import Path

import numpy as np

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.serving.exports import ExportFolders

if __name__ == "__main__":
    root, values = Path(sys.argv[1]), np.load(sys.argv[2])
    layout = Layout.from_dict(json.loads(sys.argv[3]))
    for i in range(5):
        ExportFolders(root).write(f"n{i}", lambda: Adapter(layout, values, 1.0), "base")
