"""The local page over a folder of runs: `ebbtide dashboard`. It reads and never writes."""
