"""Jobs: a graph with an owner, a priority and a state, stored before anybody is told "accepted"."""
