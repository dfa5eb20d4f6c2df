"""From files of faces to batches: containers, what they hold, the order of samples, decoding, augmentation."""
