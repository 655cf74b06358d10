"""One panel from a table: functions that take Axes and return them, as seaborn's do.

`History.plot`, `Report.plot` and `LayerReports.plot` call them with their tidy tables, and whole figures, as the
command `figures` writes them, are made of them (`neuralcollapse.figures`). matplotlib is imported to draw only.

    curves.py      a metric over the epochs: mean, band and seeds; the marks of zero error and of the learning rate
    layers.py      a metric over the layers, or over layers and epochs; the numbers of a report
    spectrum.py    measured singular values with the closed form of the central path laid over them
    quantities.py  what each metric is called, its formula, and its scale
    style.py       colours, axes, and sizes for papers and slides
"""

from __future__ import annotations

from neuralcollapse._errors import InputError, install


def require_matplotlib() -> None:
    """Raise unless matplotlib and pandas are installed, which nothing else in the library needs.

    Raises:
        InputError: one of them is not.
    """
    try:
        import matplotlib.axes  # noqa: F401
        import pandas  # noqa: F401
    except ImportError as error:
        raise InputError(f"a plot needs {error.name}: {install(error.name or 'matplotlib')}") from None
