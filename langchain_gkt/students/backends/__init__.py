"""The engines that can run a student's model, behind one protocol."""
