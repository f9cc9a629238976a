"""State and rules of the embedded services, apart from sockets."""
