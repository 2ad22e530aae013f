"""The core: documents → frames → aligned spectra → estimates → decisions, on numpy arrays and plain documents."""
