"""`python -m dualtune_edge` is `dualtune-edge`."""

from dualtune_edge.cli import main

main()
