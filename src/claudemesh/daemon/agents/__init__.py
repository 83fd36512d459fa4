"""The sessions of agents that run on this machine, and what was put before each of them (docs/spec/surfacing.md)."""

from claudemesh.daemon.agents.composing import REPLY_TOOL
from claudemesh.daemon.agents.moments import Moment, Reach
from claudemesh.daemon.agents.news import News, Waiting
from claudemesh.daemon.agents.registry import Agents
from claudemesh.daemon.agents.session import AgentSession
from claudemesh.daemon.agents.taking import Offer, Taken
from claudemesh.daemon.wording import REACH_WORDS

__all__ = [
    "REACH_WORDS",
    "REPLY_TOOL",
    "AgentSession",
    "Agents",
    "Moment",
    "News",
    "Offer",
    "Reach",
    "Taken",
    "Waiting",
]
