"""From the stream to the browser: the newest frame, scores and facts."""
