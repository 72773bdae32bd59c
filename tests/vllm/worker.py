"""Another process that shares the server: asks questions with its own documents, and prints the generated tokens."""

import json
import sys

from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.serving.served_model import ServedModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.engine.requests import Request


def main(told):
    with LMDBStore(told["store"], model=None, readonly=True) as store:
        served = ServedModel(told["url"], store, lm="embedded", recipe=told["recipe"], folder=told["folder"], keep=1)
        for question in told["questions"]:
            for text in told["texts"]:  # a different adapter each time, of which one is kept loaded
                selection = served.select([served.key(text)])
                ids = prompt_ids(served.lm.tokenizer, question)
                found = served.lm.engine.generate(Request(ids, told["tokens"], adapters=selection))
                print(json.dumps({"question": question, "text": text, "ids": found.token_ids}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
