"""The identity provider itself: its pages, its token endpoint, its metadata and its tokens."""
