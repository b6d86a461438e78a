"""The agent's loop: toolset → tool → arguments → run → … → answer, over MCP servers.

from dualtune_edge.runtime import Agent
from dualtune_edge.runtime.agent import Policy, PolicyApprover, run
from dualtune_edge.runtime.agent.servers import Servers

with Agent.open("bundle") as agent, Servers.open("mcp.json") as servers:
    for event in run(agent, "commit what changed", servers, PolicyApprover(Policy())):
        print(event)
"""

from dualtune_edge.runtime.agent.approval import Approval, Approver, PendingCall, Policy, PolicyApprover, read_policy
from dualtune_edge.runtime.agent.events import (
    ApprovalEvent,
    ArgumentsEvent,
    DoneEvent,
    Event,
    ResultEvent,
    TextEvent,
    ToolEvent,
    ToolsetEvent,
)
from dualtune_edge.runtime.agent.loop import RunLimits, run, run_async
from dualtune_edge.runtime.agent.toolbox import Toolbox

__all__ = [
    "Approval",
    "ApprovalEvent",
    "Approver",
    "ArgumentsEvent",
    "DoneEvent",
    "Event",
    "PendingCall",
    "Policy",
    "PolicyApprover",
    "ResultEvent",
    "RunLimits",
    "TextEvent",
    "ToolEvent",
    "Toolbox",
    "ToolsetEvent",
    "read_policy",
    "run",
    "run_async",
]
