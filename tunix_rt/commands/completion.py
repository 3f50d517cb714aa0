"""Print the line that makes the shell complete commands, runs, experiments and config files; or what it evaluates.

The program `tunix_rt` is completed, which is `python -m tunix_rt` under a shorter name. Put the line into the file
that the shell reads at its start (~/.bashrc, ~/.zshrc, ~/.config/fish/config.fish) to have it in every shell.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tunix_rt.commands import Parser
from tunix_rt.terminal import out

LINES = {"bash": 'eval "$({})"', "zsh": 'eval "$({})"', "fish": "{} | source"}
ZSH = "autoload -Uz compinit && compinit\n"
"""What makes zsh complete at all; harmless if it was done before."""


def main(arguments: Sequence[str]) -> int:
    """Print the line to install completion, for the shell at hand, or the code of the shell that is named."""
    parser = Parser("completion", __doc__)
    parser.add_argument("shell", nargs="?", choices=sorted(LINES), help="print the code for this shell")
    shell = parser.parse(arguments).shell
    if shell is None:
        here = Path(os.environ.get("SHELL", "bash")).name
        here = here if here in LINES else "bash"
        out(LINES[here].format(shlex.join([sys.executable, "-m", "tunix_rt", "completion", here])))
        return 0

    from argcomplete.shell_integration import shellcode

    code = shellcode(["tunix_rt"], shell=shell)
    out(ZSH + code if shell == "zsh" else code)
    return 0
