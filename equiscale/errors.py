"""What a user did that cannot work, told in one sentence."""


class InputError(ValueError):
    """One clear sentence: what is wrong, where, and what to do. The command line prints it and exits with 2."""


class Stopped(Exception):
    """Raised inside a long piece of work that was asked to stop, or lost its claim; whatever was saved is kept."""


def need(extra: str, error: ImportError) -> InputError:
    """The one sentence for a missing extra: which package, and the command that brings it."""
    name = getattr(error, "name", None) or str(error)
    return InputError(f"{name} is not installed: this needs `pip install 'equiscale[{extra}]'`.")
