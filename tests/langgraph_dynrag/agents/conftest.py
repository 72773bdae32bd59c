"""What the tests of agents share."""

import pytest

from tests.langgraph_dynrag.agents.watched import ASK


@pytest.fixture(params=["sync", "async"])
def run(request):
    """Return a function that invokes an agent, synchronously or asynchronously."""

    async def asynchronous(agent, asked=ASK, config=None, **options):
        return await agent.ainvoke(asked, config, **options)

    async def synchronous(agent, asked=ASK, config=None, **options):
        return agent.invoke(asked, config, **options)

    return asynchronous if request.param == "async" else synchronous
