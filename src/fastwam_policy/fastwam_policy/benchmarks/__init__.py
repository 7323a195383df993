"""How well a policy does the tasks of simulators, by the protocol of those who made them."""
