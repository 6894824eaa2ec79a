"""Where an answer comes from, and whether a wrong one can be told: the verbs explain and detect."""
