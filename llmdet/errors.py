"""One small tree of errors. Each message says what was expected, what came, where, and what to do."""


class LlmdetError(Exception):
    """Base of every error that a user can cause and mend; the command line prints it as one line."""


class FormatError(LlmdetError):
    """A file is not in the format that it was read as."""


class SettingError(LlmdetError):
    """A recipe, option or environment value does not make sense."""


class MissingError(LlmdetError):
    """A file, folder, table or checkpoint that a command needs is not there."""


class RecordError(LlmdetError):
    """A record breaks an invariant of the data model (see `llmdet.validate`)."""


class ImageError(LlmdetError):
    """A picture cannot be used: not a picture, cut short, too large, or outside its root."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


class BusyError(LlmdetError):
    """Another live process holds what this one needs (a lease on a ledger)."""


class DamagedError(LlmdetError):
    """A stored file does not have the content that its manifest promises."""


class ExtraError(LlmdetError):
    """An optional dependency is missing."""

    @classmethod
    def of(cls, package: str, extra: str) -> "ExtraError":
        return cls(f"{package} is not installed; run: pip install 'llmdet-data[{extra}]'")
