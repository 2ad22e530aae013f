"""The core: documents → frames → aligned spectra → estimates → decisions, on numpy arrays alone."""
