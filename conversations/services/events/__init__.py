"""Events out: each gets a position after its commit, is posted to the client's endpoints, and stands in the feed."""
