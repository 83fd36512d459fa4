"""`python -m claudemesh`."""

from claudemesh.cli.main import main

if __name__ == "__main__":
    main()
