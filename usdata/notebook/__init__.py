"""A data set in a notebook: images.py reads pictures by position, id, mask or rows; cards.py shows sets and audits as HTML.

`usdata.load(SET)` gives the object; its methods come here when they are first used, so that the contract stays free of presentation.
"""
