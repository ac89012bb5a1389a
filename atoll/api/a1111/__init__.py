"""The A1111 door: its clients' requests as graphs and jobs, one file per group of routes."""
