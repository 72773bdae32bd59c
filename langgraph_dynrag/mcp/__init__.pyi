from .access import MCPAccess as MCPAccess
from .limits import MCPLimits as MCPLimits
from .server import create_mcp_server as create_mcp_server
