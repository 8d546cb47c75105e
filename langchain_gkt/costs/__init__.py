"""What guided answers cost, counted by callbacks and priced in Decimal money."""

from __future__ import annotations

from langchain_gkt.costs.budget import Budget
from langchain_gkt.costs.comparison import BillComparison
from langchain_gkt.costs.context import track_costs
from langchain_gkt.costs.observer import CallObserver
from langchain_gkt.costs.prices import MachineTime, Price
from langchain_gkt.costs.report import CostReport
from langchain_gkt.costs.scenarios import BillingScenario, CachedPrefix, scenarios_of
from langchain_gkt.costs.tracker import CostTracker
from langchain_gkt.errors import BudgetExceeded

__all__ = [
    "BillComparison",
    "BillingScenario",
    "Budget",
    "BudgetExceeded",
    "CachedPrefix",
    "CallObserver",
    "CostReport",
    "CostTracker",
    "MachineTime",
    "Price",
    "scenarios_of",
    "track_costs",
]
