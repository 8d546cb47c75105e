"""The former home of `langchain_gkt.telemetry`; its names can still be imported from here."""

from __future__ import annotations

from langchain_gkt.telemetry import OpenTelemetryHandler

__all__ = ["OpenTelemetryHandler"]
