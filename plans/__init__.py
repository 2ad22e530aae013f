"""Bluesky plans that come with the agent."""

from .adaptive import AdaptiveSpectrum, adaptive_frame, adaptive_xanes, fluorescence, transmission

__all__ = ["AdaptiveSpectrum", "adaptive_frame", "adaptive_xanes", "fluorescence", "transmission"]
