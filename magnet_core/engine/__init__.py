"""What runs tasks: this process, several of this machine, or a cluster; what comes of them is the same."""
