"""The gateway: OpenAI's protocol in, answers drawn as a palette asks; either aligned or saying that they are not.

deciding    which solution a request is served by, or why it is refused
asking      what a request may say, and what of it differs from the pilot's settings
sourcing    candidates from any engine; requests that are handed on as they are
scoring     rewards on the candidates of many requests at once
selecting   one of k candidates, and the report of it
admitting   how many are let in, and what happens when a client hangs up
canary      whether the rewards still say what they said of the pilot
gateway     all of these together, without the web
app         the web: FastAPI
"""
