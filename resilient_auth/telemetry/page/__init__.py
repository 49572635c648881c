"""The status page: the verdict first, then what an owner on call asks next; one document that needs nothing else.

events ─▶ history ─┐
health, forecast ──┼─▶ sections of HTML ─▶ the document, answers to polls, server-sent events
service levels ────┘
"""
