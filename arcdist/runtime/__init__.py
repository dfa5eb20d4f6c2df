"""The machine a run stands on: processes, devices, collectives, seeds, precision."""
