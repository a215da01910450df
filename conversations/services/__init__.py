"""The domain's services, on ten floors. Imports go down only; `lint-imports` checks it.

staff_actions
copilot | agent_sync | export | jobs | desk
replies
history
retention | voice
inbound
transitions
delivery | media | simulator | events
contacts | tenants | engine_chats | figures
core
"""
