"""Stores: sealed records in a file or in Redis.

Read `sealed`, which makes a store of any backend, then `file` and `redis`; `keys` is where keys come from, and `gate`
keeps a medium that fails from costing anything.
"""
