"""The one exception for input that a person has to correct."""


class InputError(Exception):
    """Data, configuration or an adapter that cannot be used as it is.

    The message is one line that says where the fault is and what to do. The command
    line prints it and exits with status 2; Snakemake stops before the DAG is built.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))
