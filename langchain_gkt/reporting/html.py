"""HTML from jinja2 templates. All values are escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, *, folder: Path | None = None, **values: Any) -> str:
    """Fill in a template.

    Args:
        template: Name of a file in ``reporting/templates``, or in ``folder``.
        folder: A further folder with templates, which may extend or include those here.
        **values: The template's values. Text is escaped. `markupsafe.Markup` is used as it is.

    Raises:
        ImportError: If jinja2 is missing.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise missing_extra("jinja2") from error
    environment = Environment(
        loader=FileSystemLoader([*([folder] if folder else []), _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def missing_extra(package: str) -> ImportError:
    """Return the error for a missing package of the extra ``report``."""
    return ImportError(f'{package} is not installed: pip install "langchain-gkt[report]"')
