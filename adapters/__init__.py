"""Sources, sinks and controls: one module or subpackage per transport, device or file format."""
