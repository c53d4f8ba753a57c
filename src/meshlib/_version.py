"""The version of the distribution `meshlib-http`."""

__version__ = "0.1.0"
