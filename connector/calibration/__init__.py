"""Find the cutoff and the ranking that fit an index, from labelled images or from copies of its own images.

In reading order:

    risk_bounds    the largest cutoff that loses at most a share of what must be found, with confidence
    image_copies   crops, mirrored and recoloured copies of an image
    calibrate      measures what cutoffs lose, and chooses cutoff and ranking

`semcut calibrate` uses them, and stores what they choose with the index.
"""
