"""The providers' side of the line, as plain functions: payloads as they compose and sign them, answers as they give.

Written after the providers' documents and not after our adapters, so that each can be held against the other. Nothing
here calls a network or keeps a state.
"""
