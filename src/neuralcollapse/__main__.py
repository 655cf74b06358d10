"""`python -m neuralcollapse`."""

from neuralcollapse.cli import main

if __name__ == "__main__":
    main()
