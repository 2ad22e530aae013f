"""A simulated beamline without hardware: ophyd devices, a charging cathode, plans, and replay of recordings."""
