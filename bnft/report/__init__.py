"""Tables, figures and the report. All numbers follow from the result files in the store."""
