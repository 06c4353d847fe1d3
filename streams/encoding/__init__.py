"""The encoder worker's parts: item records enter, vectors of one fingerprint leave on `item-vectors`."""
