"""Report: a table and its analyses in, one self-contained page and paper figures out.

    style        colours and number formats      material    the table cut into curves, the facts, the analyses
    drawing      a figure as a value             figures     every figure, from *_figures
    interactive  a drawing with plotly           printed     the same with matplotlib
    sheet        a table as a value              tables      laws; run_tables: rungs, runs, dropped, data, machine
    page         write(table, facts, analyses, folder)

plotly, matplotlib and jinja2 (the extra `report`) are imported when something is drawn.
"""

from equiscale.report.page import write

__all__ = ["write"]
