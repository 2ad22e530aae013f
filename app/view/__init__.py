"""The dashboard: a separate process that shows what sessions write into their folders."""
