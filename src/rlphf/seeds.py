"""Independent random streams out of one seed."""

import hashlib


def derive(seed: int, *names: object) -> int:
    """Return a 32-bit seed for the stream `names` of an experiment's `seed`.

    Streams are independent of each other, so adding a preference leaves the randomness of
    the others as it was.
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
