"""Runs read back as one page: the paper's tables, its curves, comparisons, and rollouts to read."""

from workflows.report.build import Report, build_report
from workflows.report.labels import Labels

__all__ = ["Labels", "Report", "build_report"]
