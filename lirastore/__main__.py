"""`python -m lirastore`."""

from lirastore.cli import main

if __name__ == "__main__":
    main()
