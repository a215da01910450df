"""The domain's services, on nine floors. Imports go down only; `lint-imports` checks it.

staff_actions
copilot | agent_sync | export | jobs
replies
history
retention | voice
inbound | transitions
delivery | simulator
contacts | tenants | engine_chats
core
"""
