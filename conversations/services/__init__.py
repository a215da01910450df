"""What Convo does, folder by folder the way of a message:

    arriving ─► session ─► answering ─► delivering          and afterwards: keeping, forgetting
    what people say          ▲             what goes out
                  voice, web and agents: sessions by phone, by the copilot's panel, by the sync protocol

Beside it: people (who writes), clients (who is served), export, simulation; and what all of them use.
"""
