"""How the files and labels of each data set become a manifest."""
