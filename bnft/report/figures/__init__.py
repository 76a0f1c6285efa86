"""The figures of the report, drawn with Altair: as charts on the page, and as one picture for print."""
