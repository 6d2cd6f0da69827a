"""The agent's own small flow runtime: definitions in, messages through nodes, no Python of the flow's author run."""
