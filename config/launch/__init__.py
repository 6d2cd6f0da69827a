"""How the platform's programs are launched on one machine: found, started, watched, stopped."""
