"""What the agent drives: each driver speaks to one kind of flow runtime. See `base.Driver`."""
