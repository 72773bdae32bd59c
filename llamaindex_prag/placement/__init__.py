"""Where retrieved passages act: through their adapters, as text in the prompt, or not at all.

    candidate.py    a retrieved passage, and what is planned for it
    maker.py        makes the adapters that are missing, and remembers what cannot be learnt
    placer.py       which passages act through their adapters, and how strongly
    service.py      plan -> make -> place, for LlamaIndex's postprocessor and LangGraph's injector alike

Knows no framework.
"""
