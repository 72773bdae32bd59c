"""A small HTTP server on the loopback interface that speaks OpenAI's protocol and misbehaves on demand.

Its replies are a function of the request, chosen by the test. A `Fault` applies once, to the next request to its path.
"""

from tests.openai_server.models import beginning_again, knowing, serving
from tests.openai_server.replies import Fault
from tests.openai_server.server import OpenAIServer

__all__ = ["Fault", "OpenAIServer", "beginning_again", "knowing", "serving"]
