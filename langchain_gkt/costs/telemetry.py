"""The former home of `langchain_gkt.telemetry`; its handler can still be imported from here."""

from __future__ import annotations

import importlib

# Imported by name: telemetry depends on costs, and modules must not depend on each other.
OpenTelemetryHandler = importlib.import_module("langchain_gkt.telemetry").OpenTelemetryHandler

__all__ = ["OpenTelemetryHandler"]
