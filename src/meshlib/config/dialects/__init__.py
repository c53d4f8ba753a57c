"""The documents of other meshes, translated into what a user of this one would have written.

- `resources`: one document: its kind, its name, its fields, and where each of them stands.
- `fields`: reads a document's fields, so that none is dropped in silence.
- `draft`: what all documents together come to, as the native form: a map like that of a file.
- `table`: which kinds are read, by what; and `translate`, which does all of it.
- `kubernetes`, `istio`, `gateway_api`, `linkerd`, `consul`: one for each mesh.

A translated document takes the same way as a native file from there: the model, the contradictions, the compiler. So
there is one meaning of everything, and ``meshlib convert`` prints what is loaded.
"""
