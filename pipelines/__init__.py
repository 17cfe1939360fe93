"""Training jobs that come with lirastore: clients of its public API, made to be copied and changed."""
