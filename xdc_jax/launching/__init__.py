"""Jobs on TPU slices that do not exist yet: what `xdc launch` is made of."""
