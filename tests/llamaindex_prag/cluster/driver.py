"""A driver in a process of its own, which a test kills: address, model folder, store folder, number of passages."""

import sys

from llamaindex_prag.cluster.ray_parametrizer import parametrize_with_ray
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.cluster.corpus import passages

if __name__ == "__main__":
    address, model, folder, number = sys.argv[1:]
    lm = CausalLM.from_pretrained(model, device="cpu")
    with LMDBStore(folder, model=lm.fingerprint, encoding="float32") as store:
        parametrize_with_ray(
            ParametricModel(lm, store, recipe="prag"),
            passages(int(number)),
            address,
            documents_at_once=2,
            progress=False,
            watch=lambda status: print(status.made, flush=True),
        )
