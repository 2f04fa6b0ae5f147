"""Run `samovard` as `python -m samovard`."""

from samovard.cli import main

if __name__ == "__main__":
    main()
