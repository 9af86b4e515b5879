"""The command line of stage two: a file a command."""
