"""The command `extract plan`: what stage one takes for slides that are not there yet."""
