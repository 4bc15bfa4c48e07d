"""The networks: which may run, in what engine, and the constants that training and analysis share."""
