"""Bluesky plans of the agent's own."""

from .adaptive import AdaptiveSpectrum, adaptive_frame, adaptive_xanes, fluorescence, transmission

__all__ = ["AdaptiveSpectrum", "adaptive_frame", "adaptive_xanes", "fluorescence", "transmission"]
