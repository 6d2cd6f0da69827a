"""Faults on purpose: rollouts go on while parts of the platform are killed, stopped and emptied (``make faults``).

Every scenario ends with one comparison: what HTTP answered, what the database holds, what the devices have done.
Every protection has a control, a run without it, in which that comparison must find something.
"""
