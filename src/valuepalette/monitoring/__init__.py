"""Monitoring: served traffic is a fresh pilot, and says whether what is served is still what was asked.

rows       served candidates as arrays; a request counts once
attaining  is every target still met
drifting   has the mean of the base distribution moved
betting    or anything else of it
renewing   what would today's λ be
reporting  what was found, as numbers, JSON and tables
watching   all of it together, as traffic comes or from its files
"""

from __future__ import annotations

from valuepalette.monitoring.reporting import Bet, Monitoring, Move, Served, Shift, Target
from valuepalette.monitoring.watching import Watch, monitor

__all__ = ["Bet", "Monitoring", "Move", "Served", "Shift", "Target", "Watch", "monitor"]
