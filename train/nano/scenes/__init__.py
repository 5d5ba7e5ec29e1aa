"""Generated images to learn from: materials, things, defects, photographs."""
