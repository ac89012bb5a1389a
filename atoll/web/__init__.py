"""The studio: pages that talk to the services of `atoll/api` and hold no logic of their own."""
