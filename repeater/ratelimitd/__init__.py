"""The daemon that shares limits of starts between processes: its ledgers, its words, its two ends."""
