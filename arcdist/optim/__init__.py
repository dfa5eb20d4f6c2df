"""Optimizers and schedules."""

from arcdist.optim.center_updates import CenterUpdate
from arcdist.optim.optimizers import OptimConfig, parameter_groups
from arcdist.optim.schedules import Schedule, ScheduleConfig

__all__ = ["CenterUpdate", "OptimConfig", "Schedule", "ScheduleConfig", "parameter_groups"]
