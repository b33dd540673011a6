"""What a job would need on a TPU slice, from programs compiled without one."""
