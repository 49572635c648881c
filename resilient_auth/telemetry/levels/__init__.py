"""Service levels: how much is asked for and how much of it succeeds, against the period before; and alerts (G25).

tally ─ collect ─▶ counts of this process ─ write ─▶ shards in the store ─ read, sum ─▶ levels ─▶ rules ─▶ alerts
                                                                                                  └▶ events, webhook
"""
