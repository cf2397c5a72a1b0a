"""The verbs of the `uscl` command line, a module for each stage.

A verb parses, calls the function of the same name, and prints. No logic lives here.
"""
