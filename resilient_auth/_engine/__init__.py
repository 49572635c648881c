"""One token's way: look it up, else join the one exchange for it, else fall back.

Read `acquire`, then `single_flight`, then `exchange`, `schedule` and `recovery`; `engine` holds what they share.
"""
