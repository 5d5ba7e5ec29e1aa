"""What is done with bundles and results off the stream: calibration, bulk scoring, reports, the fleet."""
