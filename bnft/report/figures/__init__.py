"""The report's figures, drawn with Altair. Each becomes charts on the page, and one picture for print."""
