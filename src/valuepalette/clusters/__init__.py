"""Sampling and scoring on a Ray cluster: the same parts as on one machine, made by whoever has a device."""
