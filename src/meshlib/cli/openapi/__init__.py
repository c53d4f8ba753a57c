"""Python of an OpenAPI document: a Protocol of declared calls, and models of what they take and give.

document      the document, its references, its bounds
files         those beside it
swagger       Swagger 2.0 as OpenAPI 3.0
names         names of Python
expressions   types as text, and how they are laid out
shapes        what schemas say of objects
directions    what is sent only, and what comes back only
schemas       JSON Schema into types
operations    paths into methods
module        all of it as one file
"""
