"""Workers: processes that own one device, claim tasks from the store and leave artifacts."""
