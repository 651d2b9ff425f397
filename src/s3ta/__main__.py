"""`python -m s3ta` is the same program as `s3ta`."""

from s3ta.cli import main

if __name__ == "__main__":
    main()
