"""The data model: frozen values without IO or decisions. Imports only the standard library."""
