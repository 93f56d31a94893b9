"""Pages about runs, sweeps and studies, made of what lies in their folders."""
