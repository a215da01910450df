"""Simulators of the providers: payloads as they compose and sign them, answers as they give them.

They are written from the providers' documents and import no adapter, so that each side tests the other. Nothing here
calls a network or keeps a state.
"""
