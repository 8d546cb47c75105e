"""When to ask the teacher, and for how much. One file for each gate."""

from langchain_gkt.gates.agreement import AgreementGate
from langchain_gkt.gates.base import Gate, Signals, ThresholdGate, gate_from
from langchain_gkt.gates.calibration import calibrate
from langchain_gkt.gates.confidence import ConfidenceGate
from langchain_gkt.gates.hopeless import HopelessGate
from langchain_gkt.gates.learned import LearnedGate, Predictor
from langchain_gkt.modes import AMOUNTS, Amount

__all__ = [
    "AMOUNTS",
    "AgreementGate",
    "Amount",
    "ConfidenceGate",
    "Gate",
    "HopelessGate",
    "LearnedGate",
    "Predictor",
    "Signals",
    "ThresholdGate",
    "calibrate",
    "gate_from",
]
