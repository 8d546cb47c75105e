"""Bulk inference on Ray Data: a dataset of prompts in, the same dataset with answers and bill out.

Importing this package imports neither Ray nor torch. `guide_dataset` needs the extra ``ray``.
"""

from __future__ import annotations

from langchain_gkt.bulk.batch_endpoint import BatchBill, read_batch, write_batch
from langchain_gkt.bulk.columns import OUTPUT_COLUMNS
from langchain_gkt.bulk.dataset import guide_dataset
from langchain_gkt.bulk.job import job_report, read_report
from langchain_gkt.bulk.options import BulkOptions

__all__ = [
    "OUTPUT_COLUMNS",
    "BatchBill",
    "BulkOptions",
    "guide_dataset",
    "job_report",
    "read_batch",
    "read_report",
    "write_batch",
]
