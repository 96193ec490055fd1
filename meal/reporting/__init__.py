"""What people read: tables and training curves."""
