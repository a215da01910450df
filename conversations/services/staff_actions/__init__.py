"""Actions of staff: send, resend, correct, bulk, outreach, merge."""
