"""The studio: a live page on which a palette is found by moving sliders. The server computes, the page draws.

opening      what is looked at: the example, a pilot's file, a study, its run folder
asking       what the page may send, and the palette that it means
reweighing   the chance of each answer, and the distributions that follow
telling      figures as JSON
exporting    a palette as TOML, Python, curl and the settings of a trainer
atelier      a pilot with all that is answered about it, without the web
working      the slow lane: a process of its own, so that sliders never wait
guarding     only this page, on this machine
app          the web: FastAPI
running      from a source to a page in a browser
static       the page
"""
