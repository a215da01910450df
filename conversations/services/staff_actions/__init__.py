"""Actions of staff: send, resend, correct, redact, edit, reach out, merge, and bulk jobs."""
