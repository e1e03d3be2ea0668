"""Templates of this folder, filled in and written."""

from pathlib import Path
from typing import Any

from jaxrl_par.training.files import write_text


def write_page(path: Path, template: str, **values: Any) -> None:
    """Writes a template with these values, in which nothing is taken for HTML.

    Raises:
      FileError: it cannot be written there.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jaxrl_par.training", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template(template).render(values)
    write_text(path, text)
