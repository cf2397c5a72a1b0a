"""Which frames and clips stand in a data set twice, and the groups that follow from it."""
