"""An advisor for agents that a student drives."""

from langchain_gkt.advisor.conversation import Advice
from langchain_gkt.advisor.middleware import AdvisorMiddleware

__all__ = ["Advice", "AdvisorMiddleware"]
