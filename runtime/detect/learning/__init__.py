"""What is learned of good frames before it becomes a reference memory or a threshold: used while a stream runs, too."""
