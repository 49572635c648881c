"""The owner's other ways in while no provider can be reached: one-time codes, and guests."""
