"""One token's way: look it up, else join the one exchange for it, else fall back.

Read `acquire`, then `single_flight`, then `refresh`; `engine` holds what they share.
"""
