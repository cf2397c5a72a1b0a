"""What is special about ultrasound pictures."""
