"""One file per outside world, each a source, a sink or a control."""
