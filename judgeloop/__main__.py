"""``python -m judgeloop``."""

from judgeloop.cli import main

main()
