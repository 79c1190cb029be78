"""python -m vikdf.world --output data/sources/world ...: publishes the embedded world (see publish.py)."""

from vikdf import flags
from vikdf.world.publish import publish

if __name__ == "__main__":
    flags.main(publish)
