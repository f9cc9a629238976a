"""The embedded services over sockets, one module for each."""
