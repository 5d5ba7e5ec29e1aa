"""What a user would pick instead, beside ours: accuracy, speed, start and size in one run on one machine."""
