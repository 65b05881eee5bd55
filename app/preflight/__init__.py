"""Before the first epoch, in seconds: what the network is, whether it fits, how long it will take."""
