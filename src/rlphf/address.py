"""Addresses of tracking and what is said about them: no name and no password of a person are ever part of it."""

import re

# From the scheme to the last "@" before the path; a password that is not escaped may hold what begins a query.
USERINFO = re.compile(r"(\w://)[^\s/]*@")


def without_userinfo(text: str) -> str:
    """Return a text with the addresses in it bare of names and passwords."""
    return USERINFO.sub(r"\1", text)


def checked(uri: str) -> str:
    """Return an address of the settings; raise ValueError for one that holds a name or a password.

    It is in records, configurations and messages, so it must hold no secret.
    """
    if without_userinfo(uri) != uri:
        variables = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        raise ValueError(f"name the address alone; a name and a password belong into the environment variables {variables}")
    return uri


def said(error: Exception) -> str:
    """Return an error's text in one line that prints, with addresses bare of names and passwords."""
    return " ".join("".join(char if char.isprintable() else " " for char in without_userinfo(str(error))).split())
