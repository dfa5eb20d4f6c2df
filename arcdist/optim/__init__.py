"""Optimizers and schedules."""

from arcdist.optim.optimizers import OptimConfig, parameter_groups
from arcdist.optim.schedules import Schedule, ScheduleConfig

__all__ = ["OptimConfig", "Schedule", "ScheduleConfig", "parameter_groups"]
