"""What nano's pretraining learns by: its objectives, and who learns how."""
