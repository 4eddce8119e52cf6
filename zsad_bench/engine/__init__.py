"""What a job is, and which results of it may be kept. Imports no leaderboard, report or CLI."""
