"""Whether the extra `rl` is installed: importing this module asks for it, in one clear line."""

from __future__ import annotations

from grandbatch.errors import MissingExtraError

try:
    import tensordict  # noqa: F401  # only asked whether it is there
    import torchrl  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f'grandbatch.mappo needs TorchRL ({error}); install it with: pip install "grandbatch[rl]"'
    ) from error
