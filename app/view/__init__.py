"""The dashboard: a process of its own that shows what sessions write into their folders."""
