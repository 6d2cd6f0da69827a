"""Programs that stand beside the platform; nothing in ``app`` knows of them."""
