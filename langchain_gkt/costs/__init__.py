"""What guided answers cost: counted by callbacks, priced in Decimal money."""

from __future__ import annotations

from langchain_gkt.costs.prices import Price
from langchain_gkt.costs.report import CostReport
from langchain_gkt.costs.tracker import CostTracker, track_costs

__all__ = ["CostReport", "CostTracker", "Price", "track_costs"]
