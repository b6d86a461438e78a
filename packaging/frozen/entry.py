"""The frozen program's main module: the command line, and the process that renders templates."""

from __future__ import annotations

import sys

from dualtune_edge import cli
from dualtune_edge.toolkit.prompts import template_worker
from dualtune_edge.toolkit.prompts.template_process import TEMPLATES

RENDER = "render-templates"  # no command of users: this program starts itself so

if __name__ == "__main__":
    if sys.argv[1:] == [RENDER]:
        template_worker.main()
    else:
        TEMPLATES.command = (sys.executable, RENDER)
        cli.main()
