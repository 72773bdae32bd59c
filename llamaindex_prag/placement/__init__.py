"""Decides how each retrieved passage is used: through its adapter, as text in the prompt, or not at all.

    candidate.py       a retrieved passage, and the plan for it
    maker.py           makes missing adapters, and remembers texts that cannot be learnt
    placer.py          decides which passages act through their adapters, and how strongly
    choosing.py        chooses among documents by a router, for `ParametricModel.answer`
    service.py         plan -> make -> place, for both LlamaIndex's postprocessor and LangGraph's injector
    auto_policy.py     chooses the cheapest mode of a document: context, trained, translated or combined
    auto_chooser.py    counts how often documents are retrieved, and applies the policy
    costs.py           measures what each mode costs on this machine

Depends on no framework.
"""
