"""What is served: models that are asked where they run, or in the form in which they run.

An ``Asker`` answers the requests of a benchmark: a live model, a GGUF file through llama.cpp, or a
server that speaks the protocol of OpenAI's completions. ``open_asker`` finds out what a name means.
"""
