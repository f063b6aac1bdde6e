"""`python -m repeater` is `rpr`."""

from repeater.cli.main import main

if __name__ == "__main__":
    main()
