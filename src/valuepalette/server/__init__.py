"""The gateway: OpenAI's protocol in, answers drawn as a palette asks; either aligned or saying that they are not.

policies    what an operator decides
composing   palettes as requests write them, within an operator's floors
deciding    which solution a request is served by, or why it is refused
asking      what a request may say
selecting   one of k candidates, and the report of it
planning    how a request is served: policies on what it asks for
sourcing    candidates from any engine; requests that are handed on as they are
scoring     rewards on the candidates of many requests at once
canary      whether the rewards still say what they said of the pilot
admitting   how many are let in, and what happens when a client hangs up
metering    what is counted
recording   what is kept of what was served, and told to who watches it
exposing    what is known of traffic, beside what is counted
gateway     all of these together, without the web
answering   the shapes of OpenAI's protocol
guarding    the key, the limit of a body, errors
app         the web: FastAPI
running     from a study to a gateway that serves
"""
