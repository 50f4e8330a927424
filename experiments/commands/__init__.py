"""What the commands share: flags, progress, status, the bill, how they are stopped."""
