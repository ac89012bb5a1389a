"""The doors over HTTP, one file per surface, and the services that every door shares."""
