"""HTTP endpoints outside the REST API: webhooks, the fast path, cron, the copilot pages, health."""
