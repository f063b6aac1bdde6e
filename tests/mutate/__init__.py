"""Mutation testing: small changes to the code, one at a time, each of which some test must notice.

`__main__` is `make mutate`, `operators` makes the changes, `covering` chooses the tests, `trying` runs them.
"""
