"""Whether distillation will pay, judged before a student is trained."""
