"""What image files tell without being decoded."""
