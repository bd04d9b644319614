"""What training minimises: functions of logits and soft targets, each with the activation that belongs to it."""
