"""valuepalette"""
